"""The maths of attention maps: softmax(Q K^T / sqrt(d)) and what it does to values.

Tensors are (rows, heads, tokens, head_dim).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .multi_value import Backend, apply_map


def attend(q: Tensor, k: Tensor, v: Tensor, backend: Backend = F.scaled_dot_product_attention) -> Tensor:
    """The map of q and k applied to v.

    Args:
        q, k: (rows, heads, tokens, head_dim).
        v: (rows, heads, tokens, n * head_dim): n values under one map. n = 1 goes to `backend` as it is.

    Returns:
        A tensor of v's shape and dtype.
    """
    if v.shape[-1] == q.shape[-1]:
        return backend(q, k, v)
    if v.shape[-1] % q.shape[-1]:
        raise ValueError(f"Values {v.shape[-1]} wide do not split into heads {q.shape[-1]} wide.")
    output = torch.empty_like(v)
    apply_map(q, k, v.split(q.shape[-1], dim=-1), output.split(q.shape[-1], dim=-1), backend)
    return output


def attend_shared(q: Tensor, k: Tensor, v: Tensor, first: Sequence[int], backend: Backend) -> Tensor:
    """`attend` where some rows have the same q and k: their map is computed once, for all their values side by side.

    Args:
        q, k, v: (rows, heads, tokens, head_dim).
        first: for each row the first one with the same q and k; itself if there is none before.

    Returns:
        A tensor of v's shape and dtype.
    """
    alike: dict[int, list[int]] = {}
    for row, like in enumerate(first):
        alike.setdefault(like, []).append(row)
    output = torch.empty_like(v)
    for rows in (rows for rows in alike.values() if len(rows) > 1):
        values, outputs = ([x[row : row + 1] for row in rows] for x in (v, output))
        apply_map(q[rows[:1]], k[rows[:1]], values, outputs, backend)
    if alone := [rows[0] for rows in alike.values() if len(rows) == 1]:
        output[alone] = attend(q[alone], k[alone], v[alone], backend)
    return output


def attend_biased(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d) + bias) applied to v, by PyTorch's attention whatever the host's is.

    The bias rides on eight more dimensions of q and k (in two numbers: half precision would round one), so that any
    fused kernel takes it.

    Args:
        q, k, v: (rows, heads, tokens, head_dim).
        bias: float (heads, tokens), of each key, the same for all rows; below -5000 it leaves a key out.
    """
    dim = q.shape[-1]
    wanted = (bias.float().clamp(-5000, 5000) * math.sqrt(dim)).to(k.device)
    coarse = wanted.to(k.dtype)
    fine = (wanted - coarse.float()).to(k.dtype)
    extra = F.pad(torch.stack([coarse, fine], dim=-1), (0, 6)).expand(len(k), -1, -1, -1)
    ones = F.pad(q.new_ones(*q.shape[:3], 2), (0, 6))
    q, k, v = torch.cat([q, ones], dim=-1), torch.cat([k, extra], dim=-1), F.pad(v, (0, 8))
    return F.scaled_dot_product_attention(q, k, v, scale=1 / math.sqrt(dim))[..., :-8]

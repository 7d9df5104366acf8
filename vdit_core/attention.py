"""The maths of attention maps: softmax(Q K^T / sqrt(d)) and what it does to values.

Tensors are (rows, heads, tokens, head_dim).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

#: A host's attention: (q, k, v) -> output of v's shape; q, k and v alike in shape.
Backend = Callable[[Tensor, Tensor, Tensor], Tensor]

_CHUNK_BYTES = 64 * 2**20


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
    if v.is_cuda and _fused_takes(q, k, v):
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.EFFICIENT_ATTENTION):
            return F.scaled_dot_product_attention(q, k, v)
    if v.is_cuda:
        return torch.cat([backend(q, k, part) for part in v.split(q.shape[-1], dim=-1)], dim=-1)
    return _attend_in_chunks(q, k, v)


def _fused_takes(q: Tensor, k: Tensor, v: Tensor) -> bool:
    params = torch.backends.cuda.SDPAParams(q, k, v, None, 0.0, False, False)
    return torch.backends.cuda.can_use_efficient_attention(params)


def _attend_in_chunks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Chunks of queries against all keys: the softmax once for all values, in bounded memory."""
    queries = max(1, _CHUNK_BYTES // (4 * q.shape[0] * q.shape[1] * k.shape[2]))
    keys = k.mT / math.sqrt(q.shape[-1])
    return torch.cat([(part @ keys).softmax(-1) @ v for part in q.split(queries, dim=2)], dim=2)

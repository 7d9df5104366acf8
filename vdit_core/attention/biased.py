"""Attention with a bias on the scores of each key, by any fused kernel."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def attend_biased(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d) + bias) applied to v, by PyTorch's attention whatever the host's is.

    The bias rides on eight more dimensions of q and k (in two numbers: half quantization would round one), so that any
    fused kernel takes it.

    Args:
        q, k, v: (rows, heads, tokens, head_dim).
        bias: float (heads, tokens) or (rows, heads, tokens), of each key; below -5000 it leaves a key out.
    """
    dim = q.shape[-1]
    wanted = (bias.float().clamp(-5000, 5000) * math.sqrt(dim)).to(k.device)
    coarse = wanted.to(k.dtype)
    fine = (wanted - coarse.float()).to(k.dtype)
    extra = F.pad(torch.stack([coarse, fine], dim=-1), (0, 6)).expand(len(k), -1, -1, -1)
    ones = F.pad(q.new_ones(*q.shape[:3], 2), (0, 6))
    q, k, v = torch.cat([q, ones], dim=-1), torch.cat([k, extra], dim=-1), F.pad(v, (0, 8))
    return F.scaled_dot_product_attention(q, k, v, scale=1 / math.sqrt(dim))[..., :-8]

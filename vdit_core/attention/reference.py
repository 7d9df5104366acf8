"""Exact masking of attention weights (section "Sparsity" of arXiv 2504.10317): the ruler for everything faster.

Of each query's row softmax(q K^T / (temperature sqrt(d))) the largest weights are kept, the others count as nothing:
either a fixed share of the keys, or the fewest keys that hold a given mass. Rows are computed in chunks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_CHUNK_BYTES = 64 * 2**20

#: What is fixed: the share of keys that is kept, or the mass that the kept keys hold.
RULES = ("share", "mass")


def masked_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keep: Tensor,
    rule: str = "share",
    temperature: Tensor | float = 1.0,
    renormalise: bool = True,
) -> tuple[Tensor, Tensor]:
    """Attention of which each query keeps its strongest keys only.

    Args:
        q, k: (rows, heads, tokens, head_dim), any float dtype; computed in float32, or in float64 if q is.
        v: (rows, heads, tokens, width).
        keep: (heads,) or (rows, heads), from 0 to 1: with rule "share" round(keep * tokens) keys, with "mass" the
            fewest keys whose weights reach it; at least one key in either case.
        temperature: likewise, or one for all; above 0, below 1 sharpens the map.
        renormalise: whether the kept weights are divided by their sum.

    Returns:
        The output, of v's shape and dtype, and the share of the map that was kept, float32 (rows, heads).

    Raises:
        ValueError: for another rule, or a keep outside of 0..1.
    """
    if rule not in RULES:
        raise ValueError(f"There is no rule {rule!r}; the rules are {', '.join(RULES)}.")
    if not bool(((keep >= 0) & (keep <= 1)).all()):
        raise ValueError(f"Of a map 0 to 1 can be kept, not {keep.tolist()}.")
    dtype = torch.promote_types(q.dtype, torch.float32)
    rows, heads, tokens, dim = q.shape
    sharpness = torch.as_tensor(temperature, dtype=dtype, device=q.device).reciprocal().expand(rows, heads)
    keep = keep.to(q.device, dtype).expand(rows, heads)
    keys, values = k.to(dtype).mT, v.to(dtype)
    outputs, kept = [], torch.zeros(rows, heads, dtype=torch.float64, device=q.device)
    for part in q.split(max(1, _CHUNK_BYTES // (dtype.itemsize * rows * heads * tokens)), dim=2):
        weights = (part.to(dtype) @ keys * (sharpness / math.sqrt(dim))[..., None, None]).softmax(-1)
        mask = strongest(weights, keep, rule)
        weights = weights * mask
        if renormalise:
            weights = weights / weights.sum(-1, keepdim=True)
        kept += mask.sum((2, 3), dtype=torch.float64)
        outputs.append((weights @ values).to(v.dtype))
    return torch.cat(outputs, dim=2), (kept / tokens**2).float()


def strongest(weights: Tensor, keep: Tensor, rule: str) -> Tensor:
    """Which weights of (rows, heads, queries, tokens) are kept: bool of that shape; keep: (rows, heads)."""
    tokens = weights.shape[-1]
    if rule == "share":
        counts = (keep * tokens).round().clamp(min=1).long()
        order = weights.topk(int(counts.max()), sorted=bool((counts != counts[0, 0]).any())).indices
        ranked = torch.arange(order.shape[-1], device=weights.device) < counts[..., None, None]
        ranked = ranked.expand_as(order)
    else:  # a key is kept as long as those before it do not reach the mass
        falling, order = weights.sort(dim=-1, descending=True, stable=True)
        ranked = falling.cumsum(-1) - falling < keep[..., None, None]
        ranked[..., 0] = True
    return torch.zeros_like(weights, dtype=torch.bool).scatter(-1, order, ranked)

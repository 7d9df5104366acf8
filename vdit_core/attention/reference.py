"""Attention maps computed plainly, in chunks of queries: anywhere torch runs, in float64 on request.

    map = softmax(Q K^T / sqrt(d))        rows are queries, columns are keys, each row sums to 1

What the GPU kernels compute is tested against these functions. Tensors are (..., tokens, head_dim); results are
float32, or float64 if the queries are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK_BYTES = 32 * 2**20  # of scores

#: What is fixed: the share of a query's keys (top-k), or the mass that its keys hold (top-p).
RULES = ("top-k", "top-p")


def scores(
    q: Tensor, k: Tensor, queries: Tensor | None = None, bias: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Q K^T / sqrt(d) + bias, a chunk of queries at a time.

    Args:
        q, k: (..., tokens, head_dim), any float dtype.
        queries: int64 (n,), which rows to compute; None for all.
        bias: float (..., keys), added to the scores of each key; -inf leaves a key out.

    Yields:
        The chunk's queries, int64 (c,), and its scores, (..., c, keys).
    """
    dtype = torch.promote_types(q.dtype, torch.float32)
    chosen = torch.arange(q.shape[-2], device=q.device) if queries is None else queries.to(q.device)
    keys = k.to(dtype).mT / math.sqrt(q.shape[-1])
    for part in chosen.split(max(1, CHUNK_BYTES // (dtype.itemsize * math.prod(keys.shape[:-2]) * keys.shape[-1]))):
        found = q[..., part, :].to(dtype) @ keys
        yield part, found if bias is None else found + bias[..., None, :]


def rows(
    q: Tensor, k: Tensor, queries: Tensor | None = None, bias: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """The rows of the map: as `scores`, after the softmax."""
    for part, found in scores(q, k, queries, bias):
        yield part, found.softmax(-1)


def column_mass(
    q: Tensor, k: Tensor, queries: Tensor | None = None, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The weights that each key gets, and their squares, summed over queries: (..., keys), twice."""
    total, squares = k.new_zeros(2, *k.shape[:-1], dtype=torch.promote_types(q.dtype, torch.float32))
    for _, weights in rows(q, k, queries, bias):
        total += weights.sum(-2)
        squares += weights.square().sum(-2)
    return total, squares


def masked_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    share: Tensor,
    rule: str = "top-k",
    temperature: Tensor | float = 1.0,
    renormalise: bool = True,
    whole: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention of which each query keeps its strongest keys only (section "Sparsity" of arXiv 2504.10317).

    Args:
        q, k: (batch, heads, tokens, head_dim), any float dtype.
        v: (batch, heads, tokens, width).
        share: (heads,) or (batch, heads), from 0 to 1: with "top-k" the share of the keys, with "top-p" the mass to be
            reached by the fewest keys; at least one key in either case.
        temperature: likewise, or one for all; above 0, below 1 sharpens the map.
        renormalise: whether the kept weights are divided by their sum.
        whole: bool (tokens,), tokens whose rows and columns of the map are kept besides, as a prompt's.

    Returns:
        The output, of v's shape and dtype, and the density of each map, float32 (batch, heads).

    Raises:
        ValueError: for another rule, or a share outside of 0..1.
    """
    if rule not in RULES:
        raise ValueError(f"There is no rule {rule!r}; the rules are {', '.join(RULES)}.")
    if not bool(((share >= 0) & (share <= 1)).all()):
        raise ValueError(f"The share is {share.tolist()}; it lies between 0 and 1.")
    dtype = torch.promote_types(q.dtype, torch.float32)
    batch, heads, tokens, _ = q.shape
    sharpness = torch.as_tensor(temperature, dtype=dtype, device=q.device).reciprocal().expand(batch, heads)
    share = share.to(q.device, dtype).expand(batch, heads)
    values, output = v.to(dtype), torch.empty_like(v)
    kept = torch.zeros(batch, heads, dtype=torch.float64, device=q.device)
    for part, found in scores(q, k):
        weights = (found * sharpness[..., None, None]).softmax(-1)
        mask = strongest(weights, share, rule)
        if whole is not None:
            mask = mask | whole | whole[part, None]
        weights = weights * mask
        if renormalise:
            weights = weights / weights.sum(-1, keepdim=True)
        kept += mask.sum((2, 3), dtype=torch.float64)
        output[:, :, part] = (weights @ values).to(v.dtype)
    return output, (kept / tokens**2).float()


def strongest(weights: Tensor, share: Tensor, rule: str) -> Tensor:
    """Which weights of (batch, heads, queries, keys) are kept: bool of that shape; share: (batch, heads)."""
    if rule == "top-k":
        counts = (share * weights.shape[-1]).round().clamp(min=1).long()
        order = weights.topk(int(counts.max()), sorted=bool((counts != counts[0, 0]).any())).indices
        ranked = torch.arange(order.shape[-1], device=weights.device) < counts[..., None, None]
        ranked = ranked.expand_as(order)
    else:  # a key is kept as long as those before it do not reach the mass
        falling, order = weights.sort(dim=-1, descending=True, stable=True)
        ranked = falling.cumsum(-1) - falling < share[..., None, None]
        ranked[..., 0] = True
    return torch.zeros_like(weights, dtype=torch.bool).scatter(-1, order, ranked)

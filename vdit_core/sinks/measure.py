"""The mass that each key of a map gets, and how evenly the queries give it.

    mass_j = mean_i w_ij          the share of all attention that key j takes; times the tokens, 1 is uniform
    evenness_j = mass_j^2 / mean_i w_ij^2      1: the same from every query; 1 / queries: from a single one

A key that a few neighbours look at has mass, too; a sink is looked at by nearly all.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..attention.triton import kernels_take

_BYTES = 32 * 2**20  # of rows at once


def received(q: Tensor, k: Tensor, queries: Tensor | None = None, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mass and evenness of each key.

    Args:
        q, k: (heads, tokens, head_dim), any float dtype.
        queries: int64, which ones stand for all; None for all of them.
        bias: float (heads, tokens), added to the scores of each key before the softmax; -inf leaves a key out.

    Returns:
        float32 (heads, tokens), twice; the masses of a head sum to 1.
    """
    chosen = q if queries is None else q[:, queries.to(q.device)]
    if bias is None and kernels_take(q, k):
        from ..attention.triton import column_mass as kernels  # imports Triton

        total, squares = kernels.columns(chosen, k)
    else:
        total, squares = _columns(chosen, k, bias)
    mass, square = total / chosen.shape[1], squares / chosen.shape[1]
    return mass, (mass.square() / square.clamp(min=1e-30)).clamp(max=1.0)


def _columns(q: Tensor, k: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    keys = k.float().mT / math.sqrt(q.shape[-1])
    total, squares = torch.zeros(2, len(k), k.shape[1], device=k.device)
    for part in q.split(max(1, _BYTES // (4 * len(k) * k.shape[1])), dim=1):
        scores = part.float() @ keys
        weights = (scores if bias is None else scores + bias[:, None]).softmax(-1)
        total += weights.sum(1)
        squares += weights.square().sum(1)
    return total, squares

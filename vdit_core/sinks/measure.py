"""The mass that each key of a map gets, and how evenly the queries give it.

    mass_j = mean_i w_ij          the share of all attention that key j takes; times the tokens, 1 is uniform
    evenness_j = mass_j^2 / mean_i w_ij^2      1: the same from every query; 1 / queries: from a single one

A key that a few neighbours look at has mass, too; a sink is looked at by nearly all.
"""

from __future__ import annotations

from torch import Tensor

from ..attention.reference import column_mass
from ..attention.triton import kernels_take


def measure(q: Tensor, k: Tensor, queries: Tensor | None = None, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mass and participation of each key.

    Args:
        q, k: (heads, tokens, head_dim), any float dtype.
        queries: int64, which ones stand for all; None for all of them.
        bias: float (heads, tokens), added to the scores of each key before the softmax; -inf leaves a key out.

    Returns:
        float32 (heads, tokens), twice; the masses of a head sum to 1.
    """
    if bias is None and kernels_take(q, k):
        from ..attention.triton import column_mass as kernel  # imports Triton

        chosen = q if queries is None else q[:, queries.to(q.device)]
        total, squares = kernel.column_mass(chosen, k)
    else:
        total, squares = column_mass(q, k, queries, bias)
    count = q.shape[1] if queries is None else len(queries)
    mass, square = total / count, squares / count
    return mass, (mass.square() / square.clamp(min=1e-30)).clamp(max=1.0)

"""What densities by step, layer and head depend on, and how alike those of two models are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..ranks import rank_correlation


@dataclass(frozen=True)
class Explained:
    """The part of the variance of all values, from 0 to 1, that means explain: of each head of each layer over the
    steps, of each layer, of each step."""

    head: float
    layer: float
    step: float


def explained(densities: np.ndarray) -> Explained:
    """Of a table, float (steps, layers, heads)."""
    whole = densities.var()
    means = (densities.mean(0), densities.mean((0, 2)), densities.mean((1, 2)))
    return Explained(*(float(mean.var() / whole) if whole > 0 else 0.0 for mean in means))


@dataclass(frozen=True)
class Change:
    """From one step of a table to the next: the mean absolute difference of all values, and the rank correlation, or 0.

    after: the step before the change, counted from 0. times: its distance, as a multiple of the larger one of the
    changes before and after it; 0 for the first and the last, which have but one beside them.
    """

    after: int
    distance: float
    correlation: float
    times: float


def changes(densities: np.ndarray) -> list[Change]:
    """Of a table, float (steps, layers, heads): steps - 1 changes.

    Where a run changes its model, one stands out between neighbours: at the ends of a run changes are large, but
    their neighbours are, too.
    """
    distances = np.abs(np.diff(densities, axis=0)).mean((1, 2))
    padded = np.concatenate([[np.inf], distances, [np.inf]])
    beside = np.maximum(padded[:-2], padded[2:])
    return [
        Change(n, float(distance), rank_correlation(densities[n], densities[n + 1]) or 0.0, float(distance / around))
        for n, (distance, around) in enumerate(zip(distances, beside, strict=True))
    ]

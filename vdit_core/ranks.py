"""Ranks of numbers, and how alike two tables rank."""

from __future__ import annotations

import numpy as np

_FEWEST = 3  # numbers whose order says anything


def ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each value, from 1, float64 (n,); equal values share the mean of theirs."""
    _, place, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place.ravel()]


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    """Spearman's, of two tables of one shape: Pearson's of the ranks.

    None if there are too few values to rank, or all of a table are equal.

    Raises:
        ValueError: if the shapes differ, naming both.
    """
    if one.shape != other.shape:
        raise ValueError(f"Tables of shapes {one.shape} and {other.shape} have no rank correlation.")
    if one.size < _FEWEST:
        return None
    first, second = (ranks(values) - (values.size + 1) / 2 for values in (one, other))
    length = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / length if length > 0 else None

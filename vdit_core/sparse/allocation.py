"""Spends a mean density where it does most: little on heads that tolerate it, much on those that do not.

To first order the damages of heads add up. So, with e_h(d) the measured error of a head at density d,

    minimise sum_h e_h(d_h)   with   mean_h d_h = density

which the lower convex hulls of the e_h solve exactly: the steepest pieces are bought first (`allocate`).

Where only the density n_h is known that a head needs for a given mass, half is spent alike and half in proportion to
it (`by_need`): d_h = density / 2 + c n_h, at most 1.
"""

from __future__ import annotations

import numpy as np

_STEP = 0.005  # of density
ALIKE = 0.5  # the part of a density that all heads get alike, where only their needs are known
_SMALLEST_NEED = 1e-4  # a smaller need is that much: figures have four decimals


def allocate(errors: np.ndarray, levels: np.ndarray, density: float) -> np.ndarray:
    """The density of each head, float64 (heads,).

    Args:
        errors: float (heads, levels), 0 and up. levels: the densities they were measured at, rising, within 0..1.
        density: the mean of all densities.

    Between levels errors fall geometrically, and from the last level to density 1 linearly to 0; below the first level
    nothing is known, so that is the least a head gets. If `density` is too little for that, all heads get the same.
    """
    heads = len(errors)
    if density >= 1:
        return np.ones(heads)
    budget = (density - levels[0]) * heads
    if budget <= 0:
        return np.full(heads, max(0.0, density))
    densities = np.full(heads, levels[0], dtype=float)
    grid = np.linspace(levels[0], 1, 1 + round((1 - levels[0]) / _STEP))
    pieces = [piece for head in range(heads) for piece in _hull(head, grid, _curve(errors[head], levels, grid))]
    for _, head, low, high in sorted(pieces):
        bought = min(high - low, budget)
        densities[head] = low + bought
        budget -= bought
        if budget <= 0:
            break
    return densities


def by_need(needed: np.ndarray, density: float) -> np.ndarray:
    """The density of each head, float64, of the shape of `needed`: ALIKE of the density for each, what is left in
    proportion to need, at most 1, and so that the mean is `density`.

    Args:
        needed: float (heads,) or any shape, within 0..1. density: the mean of all densities, within 0..1.

    In proportion to need alone, sharp heads would get too little: a block of queries needs the keys around each of its
    queries, which are many more than one query needs. Measured in benchmarks/real_densities.py.
    """
    if density >= 1:
        return np.ones(needed.shape)
    needed, alike = np.maximum(needed, _SMALLEST_NEED), ALIKE * density
    low, high = 0.0, 1 / _SMALLEST_NEED  # at the latter all are whole
    while low < (middle := (low + high) / 2) < high:  # until floats are used up
        if np.minimum(alike + middle * needed, 1).mean() < density:
            low = middle
        else:
            high = middle
    return np.minimum(alike + high * needed, 1)


def _curve(errors: np.ndarray, levels: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """A head's error at each density of a grid that ends at 1."""
    least = max(errors.max(), 1e-300) * 1e-9
    falling = np.minimum.accumulate(np.maximum(errors, least))
    found = np.exp(np.interp(grid, levels, np.log(falling)))
    beyond = grid > levels[-1]
    found[beyond] = falling[-1] * (1 - grid[beyond]) / max(1 - levels[-1], 1e-12)
    return found


def _hull(head: int, grid: np.ndarray, curve: np.ndarray) -> list[tuple[float, int, float, float]]:
    """The pieces of the lower convex hull: (slope, head, from density, to density), slopes rising."""
    pieces: list[tuple[float, int, float, float]] = []
    at = 0
    while at < len(grid) - 1:
        slopes = (curve[at + 1 :] - curve[at]) / (grid[at + 1 :] - grid[at])
        to = at + 1 + int(np.argmin(slopes))
        slope = max(float(slopes[to - at - 1]), pieces[-1][0] if pieces else -np.inf)  # rising, whatever rounding says
        pieces.append((slope, head, float(grid[at]), float(grid[to])))
        at = to
    return pieces

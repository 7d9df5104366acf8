"""What may be asked of a map beside the figures that every map has."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wanted:
    """What to compute beside the cheap figures.

    pooled: edge of the pooled map; a map of fewer tokens is not pooled. top: shares of the keys whose mass is summed,
    per query. top_queries: on how many random queries that is measured (sorting is dear).
    """

    pooled: int = 512
    top: tuple[float, ...] = (0.01, 0.05, 0.1, 0.25, 0.5)
    top_queries: int = 128

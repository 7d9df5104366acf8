"""What may be asked of a map beside the figures that every map has."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """A part of a map: queries `rows`, keys `columns`, each (first, behind the last).

    edge: a part with more rows or columns than this is pooled to so many; up to it every weight is kept.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    edge: int = 1024

    def check(self, tokens: int) -> None:
        """Raises ValueError if it is empty or reaches beyond the map."""
        for name, (first, end) in (("rows", self.rows), ("columns", self.columns)):
            if not 0 <= first < end <= tokens:
                raise ValueError(f"The window's {name} {first} to {end} do not lie within the map's {tokens} tokens.")


@dataclass(frozen=True)
class Wanted:
    """What to compute beside the cheap figures.

    pooled: edge of the pooled map; a map of fewer tokens is not pooled. window: a part of it, larger. top: shares
    of the keys whose mass is summed, per query. top_queries: how many queries that is measured on (sorting is dear).
    """

    pooled: int = 512
    window: Window | None = None
    top: tuple[float, ...] = (0.01, 0.05, 0.1, 0.25, 0.5)
    top_queries: int = 128

"""What may be asked of a map beside the figures that every map has, and of how many of its queries."""

from __future__ import annotations

from dataclasses import dataclass, replace

#: Above so many tokens queries are sampled where nobody says how many: all rows of such a map take a CPU minutes.
EXACT_UP_TO = 8192
#: So many then; and of so many where more than this share of a run's calls is observed, which the run must not feel.
SAMPLED, SAMPLED_EVERYWHERE, EVERYWHERE = 1024, 256, 0.25
#: Of this share of the keys every table tells the mass.
STRONGEST = 0.1
#: A mass counts as reached this far below it: the sums of float32 weights are no nearer to the truth.
REACHED_WITHIN = 1e-6


@dataclass(frozen=True)
class Wanted:
    """What to compute beside the cheap figures.

    pooled: edge of the pooled map; a map of fewer tokens is not pooled. None for no such map.
    top: shares of the keys whose mass is summed, per query. mass: the share of a query's attention that its fewest keys
    are counted for (`MapStatistics.needed`). top_queries: on how many random queries these two are measured (sorting is
    dear); None for all that are computed.
    per_token: whether the figures of each key and each query are kept.

    Raises:
        ValueError: if a share is not above 0 and at most 1, or a number not at least 1.
    """

    pooled: int | None = 512
    top: tuple[float, ...] = (0.01, 0.05, 0.1, 0.25, 0.5)
    top_queries: int | None = 128
    mass: float = 0.95
    per_token: bool = True

    def __post_init__(self) -> None:
        for name, share in (("mass", self.mass), *(("top", share) for share in self.top)):
            if not 0 < share <= 1:
                raise ValueError(f"{name} is {share}; it lies above 0 and is at most 1.")
        for name in ("pooled", "top_queries"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise ValueError(f"{name} is {count}; it is at least 1, or None.")

    @property
    def reached(self) -> float:
        """The least sum of weights that counts as `mass`."""
        return self.mass - REACHED_WITHIN

    def small(self) -> Wanted:
        """Only what `MapStatistics.small` keeps."""
        return replace(self, pooled=None, per_token=False)

    def light(self) -> Wanted:
        """Only what a table of layers tells: for whoever watches a whole run, which must not feel it."""
        return replace(self.small(), top=(STRONGEST,))

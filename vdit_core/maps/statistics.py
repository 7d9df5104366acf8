"""Statistics of attention maps, streamed from queries and keys (section "Structure" of arXiv 2504.10317).

    map = softmax(Q K^T / sqrt(d)), rows are queries, columns are keys, each row sums to 1

What is kept grows with the number of tokens, never with its square. Either all rows are computed ("exact"), or n random
ones ("sampled"), and then each figure has a standard error. `sums` computes any map, anywhere; on a GPU with Triton
`fused` computes large ones in half quantization. A `Plan` begins with a call's statistics and does not wait for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from ..call import TokenGrid
from . import figures, gpu
from .estimate import Estimate
from .figures import Figure
from .pending import OnTheWay
from .sampling import min_queries, sample
from .sums import Sums, heads_together
from .tables import Tables
from .wanted import Wanted


@dataclass(frozen=True)
class MapStatistics:
    """What is known of some maps. Tensors are float32 on the CPU and begin with (rows, heads).

    grid: how the tokens lie. queries: how many rows of each map were computed, None for all.
    frames: (.., F, F), the mass that queries of one frame give to keys of another, mean over the frame's queries.
    temporal: (.., F), the mass at each distance in frames. spatial: (.., D), at each distance within a frame, in token
    widths, whatever the frame. Both of queries that have a place.
    entropy: (..), nats, mean over queries.
    top: (.., len(wanted.top)), the mass on a query's strongest keys, of `top_queries` random queries.
    needed: (..), the share of the keys that hold `wanted.mass` of a query's attention, of the same queries: the fewest,
    a whole number of them, the strongest first (of equal ones no more than it takes). Published measurements of sparse
    attention call this a head's density.
    largest: (..), the most that a single key receives; of sampled queries a maximum of estimates, which tends high.
    text: (..), the share of the attention that went to text beside the grid, of which all else says nothing; or None.

    What grows with the tokens, None if it is not wanted or once it was let go (`small`):
    pooled: (.., P, P'), mean weight in each block; P = P' unless sampled, when there are fewer rows.
    column_mass: (.., tokens), the mean weight that a key gets, times the number of tokens: 1 is uniform.
    entropies: (.., queries), of each query that was computed.
    """

    grid: TokenGrid
    wanted: Wanted
    queries: int | None
    frames: Estimate
    temporal: Estimate
    spatial: Estimate
    entropy: Estimate
    top: Estimate
    needed: Estimate
    largest: Estimate
    pooled: Estimate | None = None
    column_mass: Estimate | None = None
    entropies: Tensor | None = None
    text: Tensor | None = None

    @property
    def exact(self) -> bool:
        return self.queries is None

    @property
    def top_queries(self) -> int:
        there = self.grid.tokens if self.queries is None else self.queries
        return there if self.wanted.top_queries is None else min(self.wanted.top_queries, there)

    def small(self) -> MapStatistics:
        """Without what grows with the tokens: a few kB for each map."""
        return replace(self, pooled=None, column_mass=None, entropies=None)

    def __str__(self) -> str:
        rows = "all queries" if self.exact else f"{self.queries} of {self.grid.tokens} queries, sampled"
        return f"statistics of maps on {self.grid}, {rows}"


def map_statistics(
    q: Tensor,
    k: Tensor,
    grid: TokenGrid,
    wanted: Wanted | None = None,
    queries: int | None = None,
    seed: int = 0,
    on_chunk: Callable[[], None] | None = None,
) -> MapStatistics:
    """The statistics of the maps of queries and keys.

    Args:
        q, k: (rows, heads, tokens, head_dim), any float dtype; computed in float32, summed in float64 (by the kernels,
            in float32 within a tile).
        grid: of these tokens.
        queries: how many random queries stand for all; None for all. seed: which ones.
        on_chunk: called after each chunk, to show progress or to raise an interrupt.

    Raises:
        ValueError: if q, k and grid do not fit each other, or so many queries cannot be sampled.
    """
    return Plan(grid, wanted, queries, seed).start(q, k, on_chunk=on_chunk).result()


class Plan:
    """How statistics of maps on a grid are computed, and what all of them share; see `map_statistics`.

    Raises:
        ValueError: if so many queries cannot be sampled.
    """

    def __init__(
        self, grid: TokenGrid, wanted: Wanted | None = None, queries: int | None = None, seed: int = 0
    ) -> None:
        if queries is not None:
            check_queries(grid, queries)
        self.grid, self.wanted, self.queries = grid, wanted or Wanted(), queries
        self._chosen = None if queries is None else sample(grid, queries, seed)
        self._tables: dict[tuple[type[Sums], torch.device], Tables] = {}

    def start(
        self, q: Tensor, k: Tensor, text: Tensor | None = None, on_chunk: Callable[[], None] | None = None
    ) -> PendingStatistics:
        """Begin with the statistics of a call's maps; a GPU goes on with them while the CPU does other things.

        text: (rows, heads), goes into the statistics as it is. The rest, and what is raised, as `map_statistics`.
        """
        grid = self.grid
        if q.shape != k.shape or q.dim() != 4 or q.shape[2] != grid.tokens:
            raise ValueError(
                f"q {tuple(q.shape)} and k {tuple(k.shape)} are not (rows, heads, {grid.tokens}, head_dim)."
            )
        shape = q.shape[:2]
        q, k = q.flatten(0, 1), k.flatten(0, 1)
        way, group = _way(q, k, grid, self.wanted)
        parts: list[dict[str, Figure]] = []
        with torch.cuda.device_of(q):
            tables = self._tables_of(way, q.device)
            for heads in range(0, len(q), group):
                some = slice(heads, heads + group)
                parts.append(way(q[some], k[some], tables).run(on_chunk or (lambda: None)))
            found = {name: figures.joined([part[name] for part in parts]) for name in parts[0]}
            if text is not None:
                found["text"] = text.flatten(0, 1)
            return PendingStatistics(self, found, shape)

    def _tables_of(self, way: type[Sums], device: torch.device) -> Tables:
        found = self._tables.get((way, device))
        if found is None:
            found = self._tables[way, device] = way.tables(self.grid, self.wanted, self._chosen, device)
        return found


class PendingStatistics:
    """Statistics that a GPU may have yet to compute: what is small is sent to the CPU as sums, and estimated there."""

    def __init__(self, plan: Plan, found: dict[str, Figure], shape: torch.Size) -> None:
        """found: as `Sums.run` gives them. shape: rows and heads."""
        self._plan, self._shape = plan, shape
        self._way = OnTheWay([x for figure in found.values() for x in figures.tensors(figure)])
        self._found = {name: figures.filled(figure, repeat(torch.empty(0))) for name, figure in found.items()}

    def ready(self) -> bool:
        """Whether `result` need not wait."""
        return self._way.ready()

    def result(self) -> MapStatistics:
        """The statistics, once they are there; to be called once."""
        there = iter(self._way.take())
        found = {name: figures.filled(figure, there) for name, figure in self._found.items()}
        read: dict[str, Any] = {name: figures.read(name, figure, self._shape) for name, figure in found.items()}
        plan = self._plan
        return MapStatistics(plan.grid, plan.wanted, plan.queries, **read)


def check_queries(grid: TokenGrid, queries: int) -> None:
    """Raises ValueError if figures of so many sampled queries would have no honest errors, or there are not so many."""
    least = min_queries(grid)
    if not least <= queries <= grid.tokens:
        raise ValueError(
            f"{queries} sampled queries: of a map on {grid} there must be at least {least}, and at most "
            f"{grid.tokens}. Leave the number out to compute all."
        )


def _way(q: Tensor, k: Tensor, grid: TokenGrid, wanted: Wanted) -> tuple[type[Sums], int]:
    """What sums the maps, and of how many heads together."""
    fused = gpu.kernels_for(q, k)
    if fused is not None and fused.suits(grid, wanted):
        return fused.FusedSums, fused.HEADS
    return Sums, heads_together(grid.tokens)

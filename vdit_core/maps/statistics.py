"""Statistics of attention maps, streamed from queries and keys (section "Structure" of arXiv 2504.10317).

    map = softmax(Q K^T / sqrt(d)), rows are queries, columns are keys, each row sums to 1

What is kept grows with the number of tokens, never with its square. Either all rows are computed ("exact"), or n random
ones ("sampled"), and then each figure has a standard error. `rows` computes any map, anywhere; on a GPU with Triton
`fused` computes large ones in half quantization.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..call import TokenGrid
from . import gpu
from .estimate import Estimate
from .sums import Sums, heads_together, min_queries, sample
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
    largest: (..), the most that a single key receives; of sampled queries a maximum of estimates, which tends high.
    text: (..), the share of the attention that went to text beside the grid, of which all else says nothing; or None.

    What grows with the tokens, None once it was let go (`small`):
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
    largest: Estimate
    pooled: Estimate | None
    column_mass: Estimate | None
    entropies: Tensor | None
    text: Tensor | None = None

    @property
    def exact(self) -> bool:
        return self.queries is None

    @property
    def top_queries(self) -> int:
        return min(self.wanted.top_queries, self.grid.tokens if self.queries is None else self.queries)

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
    wanted = wanted or Wanted()
    if q.shape != k.shape or q.dim() != 4 or q.shape[2] != grid.tokens:
        raise ValueError(f"q {tuple(q.shape)} and k {tuple(k.shape)} are not (rows, heads, {grid.tokens}, head_dim).")
    if queries is not None:
        check_queries(grid, queries)
    shape = q.shape[:2]
    q, k = q.flatten(0, 1), k.flatten(0, 1)
    chosen = None if queries is None else sample(grid, queries, seed)
    way, group = _way(q, k, grid, wanted)
    parts = []
    with torch.cuda.device_of(q):
        for heads in range(0, len(q), group):
            some = slice(heads, heads + group)
            parts.append(way(q[some], k[some], grid, wanted, chosen).run(on_chunk or (lambda: None)))
        joined = _on_cpu({name: _join([part[name] for part in parts], shape) for name in parts[0]})
    return MapStatistics(grid, wanted, queries, **joined)


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


def _join(parts: list[Any], shape: torch.Size) -> Any:
    """Heads that were computed apart, together again."""
    if isinstance(parts[0], Tensor):
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).unflatten(0, shape)
    error = None if parts[0].error is None else _join([part.error for part in parts], shape)
    return Estimate(_join([part.value for part in parts], shape), error)


def _on_cpu(figures: dict[str, Any]) -> dict[str, Any]:
    """All of them, float32, in one transfer: each would wait for the GPU."""
    tensors: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    def change(by: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        found = {}
        for name, figure in figures.items():
            found[name] = figure.map(by) if isinstance(figure, Estimate) else by(figure)
        return found

    change(note)
    parts = iter(torch.cat([x.flatten() for x in tensors]).float().cpu().split([x.numel() for x in tensors]))
    return change(lambda x: next(parts).view(x.shape))

"""Statistics of attention maps, streamed from queries and keys (section "Structure" of arXiv 2504.10317).

    map = softmax(Q K^T / sqrt(d)), rows are queries, columns are keys, each row sums to 1

Rows of the map are computed in chunks and let go; what is kept grows with the number of tokens, never with its square.
Either all rows are computed ("exact"), or n random ones ("sampled"), and then each figure has a standard error.
On a GPU with Triton, half-precision maps go to `fused`; the rest of this file computes any, anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from ..call import TokenGrid
from . import distance
from .estimate import Estimate, Mean, send

_CHUNK_BYTES = 48 * 2**20
_LEAST_ROWS = 256  # heads are taken together as long as a chunk holds so many rows of each
_PER_BIN = 32  # sampled queries per row of a sampled pooled map: fewer have no honest standard error


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


@dataclass(frozen=True)
class MapStatistics:
    """What is known of some maps. Tensors are float32 on the CPU and begin with (rows, heads).

    grid: how the tokens lie. queries: how many rows of each map were computed, None for all.
    pooled: (.., P, P'), mean weight in each block; P = P' unless sampled, when there are fewer rows.
    window: (.., a, b), mean weights, exact in either mode; or None.
    frames: (.., F, F), the mass that queries of one frame give to keys of another, mean over the frame's queries.
    received: (.., tokens), the mean weight that a key gets, times the number of tokens: 1 is uniform.
    entropy: (..), nats, mean over queries. entropies: (.., queries), of each query that was computed.
    temporal: (.., F), the mass at each distance in frames. spatial: (.., D), at each distance within a frame, in token
    widths, whatever the frame. Both of queries that have a place.
    top: (.., len(wanted.top)), the mass on a query's strongest keys.
    """

    grid: TokenGrid
    wanted: Wanted
    queries: int | None
    pooled: Estimate
    window: Tensor | None
    frames: Estimate
    received: Estimate
    entropy: Estimate
    entropies: Tensor
    temporal: Estimate
    spatial: Estimate
    top: Estimate

    @property
    def exact(self) -> bool:
        return self.queries is None

    def __str__(self) -> str:
        rows = "all queries" if self.exact else f"{self.queries} of {self.grid.tokens} queries, sampled"
        return f"statistics of maps on {self.grid}, {rows}"


@lru_cache(maxsize=16)
def bins(tokens: int, count: int) -> Tensor:
    """Which of `count` blocks each token is in, int64 (tokens,); their sizes differ by at most one."""
    return torch.arange(tokens) * count // tokens


@lru_cache(maxsize=16)
def sizes(tokens: int, count: int) -> Tensor:
    """How many tokens each of these blocks has, int64 (count,)."""
    return torch.bincount(bins(tokens, count))


@lru_cache(maxsize=8)  # the layers of a run share one
def sample(tokens: int, queries: int, seed: int) -> Tensor:
    """Random queries, rising, without repetition: as many out of each of several equal stretches of the sequence.

    Raises:
        ValueError: if fewer than 64 queries are asked for, or more than there are tokens.
    """
    if not 2 * _PER_BIN <= queries <= tokens:
        raise ValueError(
            f"{queries} sampled queries: there must be at least {2 * _PER_BIN}, and at most the map's {tokens} tokens. "
            "Leave the number out to compute all."
        )
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(tokens, generator=generator)
    stretch = bins(tokens, queries // _PER_BIN)[shuffled]
    ordered, sizes = stretch.argsort(stable=True), torch.bincount(stretch)
    rank = torch.empty_like(shuffled)  # of a token within its stretch
    rank[ordered] = torch.arange(tokens) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return shuffled[rank.argsort(stable=True)[:queries]].sort().values


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
        ValueError: if q, k and grid do not fit each other, the window lies outside the map, or so many queries cannot
            be sampled.
    """
    wanted = wanted or Wanted()
    if q.shape != k.shape or q.dim() != 4 or q.shape[2] != grid.tokens:
        raise ValueError(f"q {tuple(q.shape)} and k {tuple(k.shape)} are not (rows, heads, {grid.tokens}, head_dim).")
    if wanted.window is not None:
        wanted.window.check(grid.tokens)
    shape = q.shape[:2]
    q, k = q.flatten(0, 1), k.flatten(0, 1)
    chosen = None if queries is None else sample(grid.tokens, queries, seed)
    way, group = _way(q, k, grid, wanted)
    parts = []
    with torch.cuda.device_of(q):
        for heads in range(0, len(q), group):
            some = slice(heads, heads + group)
            parts.append(way(q[some], k[some], grid, wanted, chosen).run(on_chunk or (lambda: None)))
        joined = _on_cpu({name: _join([part[name] for part in parts], shape) for name in parts[0]})
    return MapStatistics(grid, wanted, queries, **joined)


def _way(q: Tensor, k: Tensor, grid: TokenGrid, wanted: Wanted) -> tuple[type[Sums], int]:
    """What sums the maps, and of how many heads together."""
    if q.is_cuda:
        try:
            from . import fused  # imports Triton, which not every machine has
        except ImportError:
            pass
        else:
            if fused.suits(q, k, grid, wanted):
                return fused.FusedSums, fused.HEADS
    return Sums, max(1, _CHUNK_BYTES // (4 * _LEAST_ROWS * grid.tokens))


def _join(parts: list, shape: torch.Size) -> Any:
    """Heads that were computed apart, together again."""
    if parts[0] is None:
        return None
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
            found[name] = figure.map(by) if isinstance(figure, Estimate) else None if figure is None else by(figure)
        return found

    change(note)
    parts = iter(torch.cat([x.flatten() for x in tensors]).float().cpu().split([x.numel() for x in tensors]))
    return change(lambda x: next(parts).view(x.shape))


def weights(q: Tensor, k: Tensor, queries: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """The rows of a map, a chunk at a time.

    Args:
        q, k: (heads, tokens, head_dim).
        queries: which rows, int64; None for all.

    Yields:
        The chunk's queries (c,) and its weights, float32 (heads, c, tokens).
    """
    chosen = torch.arange(q.shape[1], device=q.device) if queries is None else queries.to(q.device)
    keys = k.float().mT / math.sqrt(q.shape[-1])
    for part in chosen.split(max(1, _CHUNK_BYTES // (4 * keys.shape[0] * keys.shape[2]))):
        yield part, (q[:, part].float() @ keys).softmax(-1)


class Sums:
    """One pass over the rows of a few heads' maps."""

    def __init__(self, q: Tensor, k: Tensor, grid: TokenGrid, wanted: Wanted, queries: Tensor | None) -> None:
        self.q, self.k, self.grid, self.wanted, self.queries = q, k, grid, wanted, queries
        device, heads, tokens = q.device, len(q), grid.tokens
        columns = min(wanted.pooled, tokens)
        rows = columns if queries is None else min(columns, len(queries) // _PER_BIN)
        self.rows, self.columns = send(bins(tokens, rows), device), send(bins(tokens, columns), device)
        self.widths = send(sizes(tokens, columns).float(), device)
        self.frames_apart, self.distances = send(distance.temporal(grid), device), distance.farthest(grid) + 1
        self.counts = [max(1, round(share * tokens)) for share in wanted.top]
        one = torch.tensor([tokens])
        placed = torch.tensor([grid.frames * grid.height * grid.width])
        per_frame = torch.full((grid.frames,), grid.height * grid.width)

        def mean(width: int, population: Tensor = one) -> Mean:
            return Mean(heads, width, population, device)

        self.pooled = mean(columns, sizes(tokens, rows))
        self.received, self.entropy, self.top = mean(tokens), mean(1), mean(len(wanted.top))
        self.frames, self.temporal = mean(grid.frames, per_frame), mean(grid.frames, placed)
        self.spatial = mean(self.distances, placed)
        self.entropies: list[Tensor] = []

    @cached_property
    def apart(self) -> Tensor:
        return distance.spatial(self.grid).to(self.q.device)

    def run(self, on_chunk: Callable[[], None]) -> dict[str, Any]:
        """The figures of a `MapStatistics`, on the device, beginning with (heads,)."""
        self.sum_rows(on_chunk)
        chosen = torch.arange(self.grid.tokens) if self.queries is None else self.queries
        which = torch.linspace(0, len(chosen) - 1, min(len(chosen), self.wanted.top_queries)).long()
        self.sum_strongest(chosen[which], which)
        sampled = self.queries is not None
        tokens = self.grid.tokens

        def first(mean: Mean, sampled: bool = sampled, alike: bool = False) -> Estimate:
            return mean.estimate(sampled, alike).map(lambda x: x[:, 0])

        entropy, received = first(self.entropy), first(self.received, alike=True)
        return {
            "pooled": self.pooled.estimate(sampled, alike=True),
            "window": self._window(),
            "frames": self.frames.estimate(sampled, alike=True),
            "received": received.map(lambda x: x * tokens),
            "entropy": entropy.map(lambda x: x[:, 0]),
            "entropies": torch.cat(self.entropies, dim=1),
            "temporal": first(self.temporal),
            "spatial": first(self.spatial),
            "top": first(self.top, sampled=len(which) < tokens),
        }

    def sum_rows(self, on_chunk: Callable[[], None]) -> None:
        """Fills all but `top`."""
        for queries, rows in weights(self.q, self.k, self.queries):
            self._add(queries, rows)
            on_chunk()

    def sum_strongest(self, queries: Tensor, which: Tensor) -> None:
        """Fills `top` from some queries; which: their places among those that were summed. Both on the CPU."""
        for _, rows in weights(self.q, self.k, queries):
            falling = rows.sort(-1, descending=True).values.cumsum(-1)
            self.top.add(torch.stack([falling[..., count - 1] for count in self.counts], dim=-1))

    def _add(self, queries: Tensor, rows: Tensor) -> None:
        """queries: (c,); rows: (heads, c, tokens)."""
        grid, heads, count = self.grid, len(rows), len(queries)
        self.received.add(rows)
        entropy = torch.special.entr(rows).sum(-1)
        self.entropies.append(entropy)
        self.entropy.add(entropy[..., None])
        pooled = rows.new_zeros(heads, count, len(self.widths)).index_add_(2, self.columns, rows)
        self.pooled.add(pooled / self.widths, self.rows[queries])

        places = distance.places(grid)
        with_place = (queries >= places.start) & (queries < places.stop)
        if not bool(with_place.all()):
            queries, rows = queries[with_place], rows[:, with_place]
        frame = (queries - places.start) // (grid.height * grid.width)
        position = (queries - places.start) % (grid.height * grid.width)
        cube = rows[..., places].unflatten(-1, (grid.frames, -1))  # (heads, c, F, HW)
        by_frame, by_position = cube.sum(-1), cube.sum(-2)
        self.frames.add(by_frame, frame)
        self.temporal.add(by_distance(by_frame, self.frames_apart[frame], grid.frames))
        self.spatial.add(by_distance(by_position, self.apart[position], self.distances))

    def _window(self) -> Tensor | None:
        window = self.wanted.window
        if window is None:
            return None
        rows, columns = (
            bins(end - first, min(end - first, window.edge)).to(self.q.device)
            for first, end in (window.rows, window.columns)
        )
        height, width = torch.bincount(rows), torch.bincount(columns)
        total = torch.zeros(len(self.q), len(height), len(width), device=self.q.device)
        for queries, part in weights(self.q, self.k, torch.arange(*window.rows)):
            pooled = part.new_zeros(*part.shape[:2], len(width))
            pooled.index_add_(2, columns, part[..., slice(*window.columns)])
            total.index_add_(1, rows[queries - window.rows[0]], pooled)
        return total / (height[:, None] * width)


def by_distance(mass: Tensor, apart: Tensor, distances: int) -> Tensor:
    """mass: (heads, c, places); apart: how far each place is from each query, (c, places). (heads, c, distances)."""
    return mass.new_zeros(*mass.shape[:2], distances).scatter_add_(2, apart.expand_as(mass), mass)

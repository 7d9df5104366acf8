"""The plain way through a map: its rows in chunks, all or some, anywhere torch runs.

Sums and sums of squares are kept of every figure, the rows are let go.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..attention import reference
from ..call import TokenGrid
from . import distance
from .estimate import Estimate, Mean, send
from .wanted import Wanted

MIN_ROWS = 128  # heads are taken together as long as a chunk holds so many rows of each
PER_BIN = 32  # sampled queries per row of a sampled pooled map: fewer have no honest standard error
PER_STRETCH = 8  # sampled queries per stretch of a frame


@lru_cache(maxsize=16)
def bins(tokens: int, count: int) -> Tensor:
    """Which of `count` blocks each token is in, int64 (tokens,); their sizes differ by at most one."""
    return torch.arange(tokens) * count // tokens


@lru_cache(maxsize=16)
def sizes(tokens: int, count: int) -> Tensor:
    """How many tokens each of these blocks has, int64 (count,)."""
    return torch.bincount(bins(tokens, count))


@lru_cache(maxsize=8)  # the layers of a run share one
def sample(grid: TokenGrid, queries: int, seed: int) -> Tensor:
    """Random queries, rising, without repetition, each token as likely as any other: spread evenly over the frames and
    over stretches of each frame."""
    tokens, size = grid.tokens, grid.height * grid.width
    frames = [grid.prefix + n * size for n in range(grid.frames + 1)]
    borders = [0]
    for first, end in pairwise(sorted({0, *frames, tokens})):
        parts = max(1, round((end - first) * queries / tokens / PER_STRETCH))
        borders += [first + (end - first) * (i + 1) // parts for i in range(parts)]
    generator = torch.Generator().manual_seed(seed)
    # A stretch holds a whole number of queries: the common random offset makes that fair.
    before = (torch.tensor(borders) * (queries / tokens) + torch.rand((), generator=generator).double()).floor().long()
    before[0], before[-1] = 0, queries
    shuffled = torch.randperm(tokens, generator=generator)
    stretch = torch.bucketize(shuffled, torch.tensor(borders[1:-1]), right=True)
    lengths = torch.tensor(borders).diff()
    rank = torch.empty_like(shuffled)  # of a token within its stretch
    rank[stretch.argsort(stable=True)] = torch.arange(tokens) - (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
    return shuffled[rank < before.diff()[stretch]].sort().values


def min_queries(grid: TokenGrid) -> int:
    """Of fewer sampled queries some figures have no honest standard error: two in each frame, two rows of a map."""
    return max(2 * PER_BIN, math.ceil(2 * grid.tokens / (grid.height * grid.width)))


def heads_together(tokens: int) -> int:
    """Of how many heads the rows are taken together."""
    return max(1, reference.CHUNK_BYTES // (4 * MIN_ROWS * tokens))


class Sums:
    """One pass over the rows of a few heads' maps."""

    def __init__(self, q: Tensor, k: Tensor, grid: TokenGrid, wanted: Wanted, queries: Tensor | None) -> None:
        self.q, self.k, self.grid, self.wanted, self.queries = q, k, grid, wanted, queries
        device, heads, tokens = q.device, len(q), grid.tokens
        columns = min(wanted.pooled, tokens)
        rows = columns if queries is None else min(columns, len(queries) // PER_BIN)
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
        self.column_mass, self.entropy, self.top = mean(tokens), mean(1), mean(len(wanted.top))
        self.frames, self.temporal = mean(grid.frames, per_frame), mean(grid.frames, placed)
        self.spatial = mean(self.distances, placed)
        self.entropies: list[Tensor] = []

    @cached_property
    def apart(self) -> Tensor:
        return distance.spatial(self.grid).to(self.q.device)

    def run(self, on_chunk: Callable[[], None]) -> dict[str, Any]:
        """The figures of a `MapStatistics`, on the device, beginning with (heads,)."""
        self.sum_rows(on_chunk)
        which = self._of_the_strongest()
        self.sum_strongest(which if self.queries is None else self.queries[which], which)
        sampled, tokens = self.queries is not None, self.grid.tokens

        def one(mean: Mean, sampled: bool = sampled) -> Estimate:
            return mean.estimate(sampled).map(lambda x: x[:, 0])

        mass = one(self.column_mass).map(lambda x: x * tokens)
        return {
            "pooled": self.pooled.estimate(sampled),
            "frames": self.frames.estimate(sampled),
            "column_mass": mass,
            "largest": mass.at(mass.value.argmax(-1)),
            "entropy": one(self.entropy).map(lambda x: x[:, 0]),
            "entropies": torch.cat(self.entropies, dim=1),
            "temporal": one(self.temporal),
            "spatial": one(self.spatial),
            "top": one(self.top, sampled=len(which) < tokens),
        }

    def _of_the_strongest(self) -> Tensor:
        """The places, among the queries that are summed, of those whose strongest keys are."""
        if self.queries is None:
            return sample(self.grid, min(self.grid.tokens, self.wanted.top_queries), seed=0)
        count = min(len(self.queries), self.wanted.top_queries)
        return torch.linspace(0, len(self.queries) - 1, count).long()

    def sum_rows(self, on_chunk: Callable[[], None]) -> None:
        """Fills all but `top`."""
        for queries, weights in reference.rows(self.q, self.k, self.queries):
            self._add(queries, weights)
            on_chunk()

    def sum_strongest(self, queries: Tensor, which: Tensor) -> None:
        """Fills `top` from some queries; which: their places among those that were summed. Both on the CPU."""
        for _, weights in reference.rows(self.q, self.k, queries):
            falling = weights.sort(-1, descending=True).values.cumsum(-1)
            self.top.add(torch.stack([falling[..., count - 1] for count in self.counts], dim=-1))

    def _add(self, queries: Tensor, weights: Tensor) -> None:
        """queries: (c,); weights: (heads, c, tokens)."""
        grid, heads, count = self.grid, len(weights), len(queries)
        self.column_mass.add(weights)
        entropy = torch.special.entr(weights).sum(-1)
        self.entropies.append(entropy)
        self.entropy.add(entropy[..., None])
        pooled = weights.new_zeros(heads, count, len(self.widths)).index_add_(2, self.columns, weights)
        self.pooled.add(pooled / self.widths, self.rows[queries])

        places = distance.places(grid)
        with_place = (queries >= places.start) & (queries < places.stop)
        if not bool(with_place.all()):
            queries, weights = queries[with_place], weights[:, with_place]
        frame = (queries - places.start) // (grid.height * grid.width)
        position = (queries - places.start) % (grid.height * grid.width)
        cube = weights[..., places].unflatten(-1, (grid.frames, -1))  # (heads, c, F, HW)
        by_frame, by_position = cube.sum(-1), cube.sum(-2)
        self.frames.add(by_frame, frame)
        self.temporal.add(by_distance(by_frame, self.frames_apart[frame], grid.frames))
        self.spatial.add(by_distance(by_position, self.apart[position], self.distances))


def by_distance(mass: Tensor, apart: Tensor, distances: int) -> Tensor:
    """mass: (heads, c, places); apart: how far each place is from each query, (c, places). (heads, c, distances)."""
    return mass.new_zeros(*mass.shape[:2], distances).scatter_add_(2, apart.expand_as(mass), mass)

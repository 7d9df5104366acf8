"""The plain way through a map: its rows in chunks, all or some, anywhere torch runs.

Sums and sums of squares are kept of every figure, the rows are let go.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from ..call import TokenGrid
from . import distance
from .estimate import Estimate, Mean, send
from .wanted import Wanted

CHUNK_BYTES = 24 * 2**20
LEAST_ROWS = 128  # heads are taken together as long as a chunk holds so many rows of each
PER_BIN = 32  # sampled queries per row of a sampled pooled map: fewer have no honest standard error


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
    if not 2 * PER_BIN <= queries <= tokens:
        raise ValueError(
            f"{queries} sampled queries: there must be at least {2 * PER_BIN}, and at most the map's {tokens} tokens. "
            "Leave the number out to compute all."
        )
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(tokens, generator=generator)
    stretch = bins(tokens, queries // PER_BIN)[shuffled]
    ordered, sizes = stretch.argsort(stable=True), torch.bincount(stretch)
    rank = torch.empty_like(shuffled)  # of a token within its stretch
    rank[ordered] = torch.arange(tokens) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return shuffled[rank.argsort(stable=True)[:queries]].sort().values


def heads_together(tokens: int) -> int:
    """Of how many heads the rows are taken together."""
    return max(1, CHUNK_BYTES // (4 * LEAST_ROWS * tokens))


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
    for part in chosen.split(max(1, CHUNK_BYTES // (4 * keys.shape[0] * keys.shape[2]))):
        yield part, (q[:, part].float() @ keys).softmax(-1)


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

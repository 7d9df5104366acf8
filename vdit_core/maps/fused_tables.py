"""What the GPU kernels need to know of all maps on a grid: its segments, and where the sampled queries lie."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from . import distance, segments
from .estimate import send
from .tables import Tables


@dataclass(frozen=True)
class Rows:
    """Some of the sampled queries: int64 (c,). frames_apart: int64 (c, F), each frame's distance from theirs. position:
    int32 (c,), the place within their frame. into: float64 (F + 2, c), 1 where a query belongs to a frame, to any
    frame, or at all. bin_edges: int32, with which of them each row of the pooled map begins, then their number.
    """

    queries: Tensor
    frames_apart: Tensor
    position: Tensor
    into: Tensor
    bin_edges: Tensor


class FusedTables(Tables):
    """As its base; also segments, cut for the kernels that take all rows or for those that take some."""

    @cached_property
    def key_segments(self) -> segments.Segments:
        return segments.of_keys(self.grid, max(1, self.columns), 128 if self.sampled else 64)

    @cached_property
    def key_edges(self) -> Tensor:
        return send(self.key_segments.edges, self.device)

    @cached_property
    def groups(self) -> Tensor:
        """With which segment begin: what lies before the frames, each of them, what lies behind; then their number."""
        grid, edges = self.grid, self.key_segments.edges[:-1].long()
        borders = grid.prefix + grid.height * grid.width * torch.arange(grid.frames + 1)
        ends = torch.tensor([0, len(edges)])
        return send(torch.cat([ends[:1], torch.searchsorted(edges, borders), ends[1:]]).int(), self.device)

    @cached_property
    def _block_edges(self) -> Tensor:
        return torch.searchsorted(self.key_segments.block, torch.arange(self.columns + 1)).int()

    @cached_property
    def block_edges(self) -> Tensor:
        """With which segment each block of keys begins, then their number: int32."""
        return send(self._block_edges, self.device)

    @cached_property
    def span(self) -> int:
        """The most segments that a block has."""
        return int(self._block_edges.diff().max())

    @cached_property
    def beyond(self) -> Tensor | None:
        """The tokens without a place, int64; None if there are none."""
        places, every = distance.places(self.grid), torch.arange(self.grid.tokens)
        found = torch.cat([every[: places.start], every[places.stop :]])
        return send(found, self.device) if len(found) else None

    @cached_property
    def top_counts(self) -> Tensor:
        return send(torch.tensor(self.counts, dtype=torch.int32), self.device)

    @cached_property
    def strongest_there(self) -> tuple[Tensor, Tensor]:
        queries, which = (send(x, self.device) for x in self.strongest)
        return queries, which

    def parts(self, most: int) -> list[Rows]:
        """The sampled queries, at most so many at once."""
        if most not in self._parts:
            assert self.queries is not None
            self._parts[most] = [self._rows(some) for some in self.queries.split(most)]
        return self._parts[most]

    @cached_property
    def _parts(self) -> dict[int, list[Rows]]:
        return {}

    @cached_property
    def count(self) -> Tensor:
        """How many sampled queries each row of `Rows.into` has, float64 (F + 2,) on the CPU."""
        assert self.queries is not None
        return self._into(self.queries).sum(1)

    @cached_property
    def bin_count(self) -> Tensor:
        """How many of them each row of the pooled map has, float64 (rows,) on the CPU."""
        assert self.queries is not None
        return torch.bincount(self._row(self.queries), minlength=self.rows).double()

    def _rows(self, queries: Tensor) -> Rows:
        """queries: on the CPU."""
        grid, size = self.grid, self.grid.height * self.grid.width
        bins = torch.searchsorted(self._row(queries), torch.arange(self.rows + 1)).int()
        return Rows(*(send(x, self.device) for x in (
            queries, distance.temporal(grid)[self._frame(queries)], ((queries - grid.prefix) % size).int(),
            self._into(queries), bins,
        )))  # fmt: skip

    def _row(self, queries: Tensor) -> Tensor:
        return queries * self.rows // self.grid.tokens

    def _frame(self, queries: Tensor) -> Tensor:
        """The frame of each; of those without a place the first or the last, which nothing is made of."""
        grid = self.grid
        frame = (queries - grid.prefix).div(grid.height * grid.width, rounding_mode="floor")
        return frame.clamp(0, grid.frames - 1)

    def _into(self, queries: Tensor) -> Tensor:
        grid = self.grid
        placed = (queries >= grid.prefix) & (queries < grid.tokens - grid.suffix)
        mine = (self._frame(queries) == torch.arange(grid.frames)[:, None]) & placed
        return torch.cat([mine, placed[None], torch.ones_like(placed[None])]).double()

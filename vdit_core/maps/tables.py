"""What the statistics of all maps on a grid share: which queries, and what lies where. Made once, not for each call."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from ..call import TokenGrid
from . import distance
from .estimate import send
from .sampling import PER_BIN, bins, sample, sizes
from .wanted import Wanted


class Tables:
    """Tables for one device, each made when it is first needed.

    queries: those that are summed, int64 (n,) on the CPU, rising; None for all.
    """

    def __init__(self, grid: TokenGrid, wanted: Wanted, queries: Tensor | None, device: torch.device) -> None:
        self.grid, self.wanted, self.queries, self.device = grid, wanted, queries, device
        self.columns = 0 if wanted.pooled is None else min(wanted.pooled, grid.tokens)
        self.rows = self.columns if queries is None else min(self.columns, len(queries) // PER_BIN)
        self.counts = [max(1, round(share * grid.tokens)) for share in wanted.top]
        self.distances = distance.farthest(grid) + 1

    @property
    def sampled(self) -> bool:
        return self.queries is not None

    @cached_property
    def row_of(self) -> Tensor:
        """The pooled map's row that each query is in, int64 (tokens,)."""
        return send(bins(self.grid.tokens, self.rows), self.device)

    @cached_property
    def column_of(self) -> Tensor:
        """Likewise of keys."""
        return send(bins(self.grid.tokens, self.columns), self.device)

    @cached_property
    def heights(self) -> Tensor:
        """How many queries each row of the pooled map has, int64 on the CPU."""
        return sizes(self.grid.tokens, self.rows)

    @cached_property
    def widths(self) -> Tensor:
        """How many keys each of its columns has, float32."""
        return send(sizes(self.grid.tokens, self.columns).float(), self.device)

    @cached_property
    def frames_apart(self) -> Tensor:
        return send(distance.temporal(self.grid), self.device)

    @cached_property
    def apart(self) -> Tensor:
        return send(distance.spatial(self.grid), self.device)

    @cached_property
    def strongest(self) -> tuple[Tensor, Tensor]:
        """The queries whose strongest keys are measured, and their places among those that are summed; on the CPU."""
        tokens, most = self.grid.tokens, self.wanted.top_queries
        if self.queries is None:
            which = torch.arange(tokens) if most is None else sample(self.grid, min(tokens, most), seed=0)
            return which, which
        count = len(self.queries) if most is None else min(len(self.queries), most)
        which = torch.linspace(0, len(self.queries) - 1, count).long()
        return self.queries[which], which

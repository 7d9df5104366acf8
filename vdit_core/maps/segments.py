"""Tokens cut into runs: stretches of the sequence that lie within one block of a pooled map and within one frame.

Sums over runs, of either side of a map, give its pooled map and its masses between frames without a second pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from ..call import TokenGrid

_WIDTHS = (64, 32, 16)  # of a tile's keys: a power of 2 that matrix units take
_ROW_WIDTHS = (128, 64, 32)


@dataclass(frozen=True)
class Runs:
    """edges: int32 (runs + 1,), where they begin, then the number of tokens. width: none is wider than this.
    block, frame: int64 (runs,), which they are in; a run without a place has the frame behind the last."""

    edges: Tensor
    width: int
    block: Tensor
    frame: Tensor

    def __len__(self) -> int:
        return len(self.block)


def cut(grid: TokenGrid, blocks: int, width: int) -> Runs:
    """The fewest runs of a width, nearly equal within each block and frame."""
    tokens, size = grid.tokens, grid.height * grid.width
    borders = {-(-i * tokens // blocks) for i in range(blocks + 1)} | {0, tokens}
    borders |= {grid.prefix + i * size for i in range(grid.frames + 1)}
    starts = []
    for first, end in pairwise(sorted(borders)):
        parts = -(-(end - first) // width)
        starts += [first + (end - first) * i // parts for i in range(parts)]
    edges = torch.tensor([*starts, tokens])
    frame = (edges[:-1] - grid.prefix).div(size, rounding_mode="floor")
    frame[(frame < 0) | (frame >= grid.frames)] = grid.frames
    return Runs(edges.int(), width, edges[:-1] * blocks // tokens, frame)


@lru_cache(maxsize=16)
def of_keys(grid: TokenGrid, blocks: int) -> Runs:
    """Of the width at which tiles, each as wide as a run may be, cost least; a tile itself costs as much as 16 keys."""
    return min((cut(grid, blocks, width) for width in _WIDTHS), key=lambda runs: len(runs) * (runs.width + 16))


@lru_cache(maxsize=16)
def of_queries(grid: TokenGrid, blocks: int, most: int) -> tuple[Runs, Tensor]:
    """Runs and the fewest tiles of 128 queries that hold them, `most` runs at most: int32, which run each begins with,
    then the number of runs."""
    tried = [cut(grid, blocks, width) for width in _ROW_WIDTHS]
    return min(((runs, _tiles(runs, most)) for runs in tried), key=lambda pair: len(pair[1]))


def _tiles(runs: Runs, most: int) -> Tensor:
    edges, starts = runs.edges.tolist(), [0]
    for run in range(len(runs)):
        if run - starts[-1] == most or edges[run + 1] - edges[starts[-1]] > _ROW_WIDTHS[0]:
            starts.append(run)
    return torch.tensor([*starts, len(runs)], dtype=torch.int32)

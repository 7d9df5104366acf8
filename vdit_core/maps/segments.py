"""Tokens cut into segments: stretches of the sequence that lie within one block of a pooled map and within one frame.

Sums over segments, of either side of a map, give its pooled map and its masses between frames without a second pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from ..call import TokenGrid

_WIDTHS = (128, 64, 32, 16)  # of a tile's keys: a power of 2 that matrix units take
_ROW_WIDTHS = (128, 64, 32)


@dataclass(frozen=True)
class Segments:
    """edges: int32 (segments + 1,), where they begin, then the number of tokens. width: none is wider than this.
    block, frame: int64 (segments,), which they are in; a segment without a place has the frame behind the last."""

    edges: Tensor
    width: int
    block: Tensor
    frame: Tensor

    def __len__(self) -> int:
        return len(self.block)


def cut(grid: TokenGrid, blocks: int, width: int) -> Segments:
    """The fewest segments of a width, nearly equal within each block and frame."""
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
    return Segments(edges.int(), width, edges[:-1] * blocks // tokens, frame)


@lru_cache(maxsize=16)
def of_keys(grid: TokenGrid, blocks: int, widest: int = 64) -> Segments:
    """Segments of the width at which the tiles cost least; a tile itself costs as much as 16 keys."""
    tried = (cut(grid, blocks, width) for width in _WIDTHS if width <= widest)
    return min(tried, key=lambda segments: len(segments) * (segments.width + 16))


@lru_cache(maxsize=16)
def of_queries(grid: TokenGrid, blocks: int, most: int) -> tuple[Segments, Tensor]:
    """Segments, and the fewest tiles of 128 queries that hold them, at most `most` in each: int32, which segment each
    tile begins with, then the number of segments."""
    tried = [cut(grid, blocks, width) for width in _ROW_WIDTHS]
    return min(((segments, _tiles(segments, most)) for segments in tried), key=lambda pair: len(pair[1]))


def _tiles(segments: Segments, most: int) -> Tensor:
    edges, starts = segments.edges.tolist(), [0]
    for segment in range(len(segments)):
        if segment - starts[-1] == most or edges[segment + 1] - edges[starts[-1]] > _ROW_WIDTHS[0]:
            starts.append(segment)
    return torch.tensor([*starts, len(segments)], dtype=torch.int32)

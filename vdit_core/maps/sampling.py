"""Which queries stand for all, and the blocks of a pooled map."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from ..call import TokenGrid

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

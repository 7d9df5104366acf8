"""Tokens in the order of 3-D tiles, so that a stretch of the sequence is a compact piece of space and time.

A grid is halved again and again along its longest side, always at a whole number of query blocks, until each part is
one block: so a grid of any size is cut into blocks of exactly as many tokens (only the last is smaller), each about as
long as it is high and wide. In the same way a query block is halved into key blocks. Where a side does not divide
evenly, a cut runs through the middle of a row of tokens. The first frame, which Wan's VAE encodes alone,
keeps to itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..call import TokenGrid

#: Tokens of a query block and of a key block: what the kernels' matrix tiles hold.
QUERIES, KEYS = 128, 64
#: A map has at least so many blocks each way, else nothing is left to choose: on small grids blocks are smaller.
_MIN_BLOCKS = 32
_SMALLEST = 4


@dataclass(frozen=True, eq=False)
class Tiles:
    """How the tokens of a grid are cut into blocks; see `tiles`.

    permutation: int32 (tokens,), the token at each place of the new order; tokens without a place on the grid come
        first (prefix) and last (suffix).
    queries, keys: tokens of a block, the last of which may hold fewer.
    centre: float32 (key blocks, 3), the mean frame, row and column of a block's tokens.
    """

    grid: TokenGrid
    permutation: Tensor
    queries: int
    keys: int
    centre: Tensor

    @property
    def query_blocks(self) -> int:
        return -(-self.grid.tokens // self.queries)

    @property
    def key_blocks(self) -> int:
        return -(-self.grid.tokens // self.keys)

    def blocks_of(self, tokens: Tensor) -> Tensor:
        """Which key blocks hold any of these tokens: bool (key blocks,), on the CPU."""
        place = torch.empty(self.grid.tokens, dtype=torch.long)
        place[self.permutation.cpu().long()] = torch.arange(self.grid.tokens)
        held = torch.zeros(self.key_blocks, dtype=torch.bool)
        held[place[tokens] // self.keys] = True
        return held

    def query_centres(self) -> Tensor:
        """As `centre`, of the query blocks: float32 (query blocks, 3)."""
        return _centres(self.grid, self.permutation, self.queries)


def block_sizes(tokens: int) -> tuple[int, int]:
    """Tokens of a query block and of a key block for so many tokens; the key block divides the query block."""
    keys = KEYS
    while keys > _SMALLEST and tokens < _MIN_BLOCKS * keys:
        keys //= 2
    return 2 * keys if keys == KEYS else keys, keys


@lru_cache(maxsize=8)
def tiles(grid: TokenGrid, device: torch.device | str = "cpu") -> Tiles:
    """The tiles of a grid, on a device."""
    queries, keys = block_sizes(grid.tokens)
    size = grid.height * grid.width
    at = np.indices((grid.frames, grid.height, grid.width)).reshape(3, -1)
    inner = np.arange(at.shape[1])
    parts: list[np.ndarray] = []
    placed = grid.prefix
    for group in (inner[:size], inner[size:]):
        near = _nearest(group, parts[-1][-1] if parts else group[0], at, -placed % queries)
        rest = _halve(np.setdiff1d(group, near), at, queries)
        parts += [near, *(_halve(block, at, keys) for block in _cut(rest, queries))] if len(group) else []
        parts = [part for part in parts if len(part)]
        placed += len(group)
    first, last = np.arange(grid.prefix), np.arange(grid.tokens - grid.suffix, grid.tokens)
    permutation = torch.from_numpy(np.concatenate([first, np.concatenate(parts) + grid.prefix, last])).int()
    return Tiles(grid, permutation.to(device), queries, keys, _centres(grid, permutation, keys).to(device))


def _nearest(tokens: np.ndarray, to: int, at: np.ndarray, count: int) -> np.ndarray:
    """Those of some tokens that fill up a block which has begun elsewhere, by their distance to its last token."""
    apart = np.square(at[:, tokens] - at[:, [to]]).sum(0)
    return np.sort(tokens[np.argsort(apart, kind="stable")[:count]])


def _cut(tokens: np.ndarray, size: int) -> list[np.ndarray]:
    return [tokens[i : i + size] for i in range(0, len(tokens), size)]


def _halve(tokens: np.ndarray, at: np.ndarray, leaf: int) -> np.ndarray:
    """Tokens in an order of which every `leaf` are near each other; at: (3, tokens of the grid)."""
    if len(tokens) <= leaf:
        return np.sort(tokens)
    where = at[:, tokens]
    longest = int(np.argmax(where.max(1) - where.min(1)))
    others = [axis for axis in (2, 1, 0) if axis != longest]
    ordered = tokens[np.lexsort((*(where[axis] for axis in others), where[longest]))]
    blocks = -(-len(tokens) // leaf)
    middle = leaf * (blocks // 2)
    return np.concatenate([_halve(part, at, leaf) for part in (ordered[:middle], ordered[middle:])])


def _centres(grid: TokenGrid, permutation: Tensor, size: int) -> Tensor:
    token = permutation.cpu().long() - grid.prefix
    row, column = token.div(grid.width, rounding_mode="floor"), token % grid.width
    places = torch.stack([row.div(grid.height, rounding_mode="floor"), row % grid.height, column], dim=-1).float()
    return torch.stack([part.mean(0) for part in places.split(size)])

"""Key blocks that every query block keeps: the first frame's, and tokens' that have no place.

The last block, which may be smaller than the others, is always among them: so kernels can treat it apart.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ..tiling import Tiles


@lru_cache(maxsize=32)
def always(tiles: Tiles, first_frame: bool = False) -> Tensor:
    """Bool (key blocks,), on the CPU."""
    grid = tiles.grid
    tokens = list(range(grid.prefix)) + list(range(grid.tokens - grid.suffix, grid.tokens))
    if first_frame:
        tokens += range(grid.prefix, grid.prefix + grid.height * grid.width)
    kept = tiles.blocks_of(torch.tensor(tokens, dtype=torch.long))
    kept[-1] = True
    return kept


@lru_cache(maxsize=32)
def placeless(tiles: Tiles) -> Tensor:
    """Query blocks with tokens that have no place, which look at everything: bool (query blocks,), on the CPU."""
    grid, starts = tiles.grid, torch.arange(tiles.query_blocks) * tiles.queries
    return (starts < grid.prefix) | (starts + tiles.queries > grid.tokens - grid.suffix) & (grid.suffix > 0)

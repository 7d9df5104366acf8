"""Key blocks that every query block keeps: the first frame's, measured sinks', and tokens' that have no place.

The last block, which may be smaller than the others, is always among them: so kernels can treat it apart.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..tiles import Tiles


def always(tiles: Tiles, first_frame: bool = False, sinks: Tensor | None = None) -> Tensor:
    """bool (key blocks,), on the CPU; sinks: int64 tokens that take outsized mass from all queries.

    Raises:
        ValueError: if a sink is no token of the grid.
    """
    grid = tiles.grid
    tokens = list(range(grid.prefix)) + list(range(grid.tokens - grid.suffix, grid.tokens))
    if first_frame:
        tokens += range(grid.prefix, grid.prefix + grid.height * grid.width)
    if sinks is not None:
        if len(sinks) and not (int(sinks.min()) >= 0 and int(sinks.max()) < grid.tokens):
            raise ValueError(f"Sink tokens {int(sinks.min())} to {int(sinks.max())} are not all on a grid of {grid}.")
        tokens += sinks.tolist()
    kept = tiles.blocks_of(torch.tensor(tokens, dtype=torch.long))
    kept[-1] = True
    return kept


def placeless(tiles: Tiles) -> Tensor:
    """Query blocks with tokens that have no place, which look at everything: bool (query blocks,), on the CPU."""
    grid, starts = tiles.grid, torch.arange(tiles.query_blocks) * tiles.queries
    return (starts < grid.prefix) | (starts + tiles.queries > grid.tokens - grid.suffix) & (grid.suffix > 0)

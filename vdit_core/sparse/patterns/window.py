"""Window: each query block keeps the key blocks around it, in a box as long, high and wide as the whole grid is.

At a border the box moves inwards, so that every query block keeps equally many. It depends on the grid alone.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ..block_mask import BlockLists, strongest
from ..tiled import Tiled
from ..tiling import Tiles


def window(call: Tiled, keep: Tensor, always: Tensor, sharpness: Tensor) -> BlockLists:
    """keep: the share of key blocks."""
    rows = keep[None] if keep.dim() == 1 else keep
    return _lists(call.tiles, tuple(map(tuple, rows.tolist())), tuple(always.tolist()))


@lru_cache(maxsize=64)
def _lists(tiles: Tiles, keep: tuple[tuple[float, ...], ...], always: tuple[bool, ...]) -> BlockLists:
    grid = tiles.grid
    sides = torch.tensor([grid.frames, grid.height, grid.width], device=tiles.centre.device)
    apart = (tiles.query_centres().to(tiles.centre.device)[:, None] - tiles.centre).abs() / sides
    # The largest of the three makes a box; their sum decides between blocks on its faces.
    scores = -(apart.amax(-1) + 1e-3 * apart.sum(-1))
    return strongest(scores.expand(len(keep), len(keep[0]), -1, -1), torch.tensor(keep), torch.tensor(always))

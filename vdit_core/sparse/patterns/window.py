"""Window: each query block keeps the key blocks around it, in a box as long, high and wide as the whole grid is.

At a border the box moves inwards, so that every query block keeps equally many. It depends on the grid alone.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ..block_mask import BlockMask, top_k
from ..tiled import Tiled
from ..tiling import Tiles


def window(call: Tiled, share: Tensor, always: Tensor, sharpness: Tensor) -> BlockMask:
    """share: the share of key blocks."""
    rows = share[None] if share.dim() == 1 else share
    return _lists(call.tiles, tuple(map(tuple, rows.tolist())), tuple(always.tolist()))


@lru_cache(maxsize=64)
def _lists(tiles: Tiles, share: tuple[tuple[float, ...], ...], always: tuple[bool, ...]) -> BlockMask:
    grid = tiles.grid
    sides = torch.tensor([grid.frames, grid.height, grid.width], device=tiles.centre.device)
    apart = (tiles.query_centres().to(tiles.centre.device)[:, None] - tiles.centre).abs() / sides
    # The largest of the three makes a box; their sum decides between blocks on its faces.
    scores = -(apart.amax(-1) + 1e-3 * apart.sum(-1))
    return top_k(scores.expand(len(share), len(share[0]), -1, -1), torch.tensor(share), torch.tensor(always))

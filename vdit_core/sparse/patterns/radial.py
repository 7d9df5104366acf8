"""Radial: each query block keeps a disc of key blocks in each frame, its radius halved as the distance in time doubles.

After the decay of attention with temporal distance in Radial Attention (arXiv 2506.19852). The grid alone decides.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ..block_mask import BlockLists, strongest
from ..tiled import Tiled
from ..tiling import Tiles


def radial(call: Tiled, keep: Tensor, always: Tensor, sharpness: Tensor) -> BlockLists:
    """keep: the share of key blocks."""
    rows = keep[None] if keep.dim() == 1 else keep
    return _lists(call.tiles, tuple(map(tuple, rows.tolist())), tuple(always.tolist()))


@lru_cache(maxsize=64)
def _lists(tiles: Tiles, keep: tuple[tuple[float, ...], ...], always: tuple[bool, ...]) -> BlockLists:
    apart = (tiles.query_centres().to(tiles.centre.device)[:, None] - tiles.centre).abs()
    doubled = apart[..., 0].clamp(min=1).log2().floor()
    radius = (apart[..., 1].square() + apart[..., 2].square()).sqrt() + 1  # 1: a block in place is not free at any time
    scores = -radius * 2**doubled
    return strongest(scores.expand(len(keep), len(keep[0]), -1, -1), torch.tensor(keep), torch.tensor(always))

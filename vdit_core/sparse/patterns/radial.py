"""Radial: each query block keeps a disc of key blocks in each frame, its radius halved as the distance in time doubles.

After the decay of attention with temporal distance in Radial Attention (arXiv 2506.19852). The grid alone decides.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ..block_mask import BlockMask, top_k
from ..tiled import Tiled
from ..tiling import Tiles


def radial(call: Tiled, share: Tensor, always: Tensor, sharpness: Tensor) -> BlockMask:
    """share: the share of key blocks."""
    rows = share[None] if share.dim() == 1 else share
    return _lists(call.tiles, tuple(map(tuple, rows.tolist())), tuple(always.tolist()))


@lru_cache(maxsize=64)
def _lists(tiles: Tiles, share: tuple[tuple[float, ...], ...], always: tuple[bool, ...]) -> BlockMask:
    apart = (tiles.query_centres().to(tiles.centre.device)[:, None] - tiles.centre).abs()
    doubled = apart[..., 0].clamp(min=1).log2().floor()
    radius = (apart[..., 1].square() + apart[..., 2].square()).sqrt() + 1  # 1: a block in place is not free at any time
    scores = -radius * 2**doubled
    return top_k(scores.expand(len(share), len(share[0]), -1, -1), torch.tensor(share), torch.tensor(always))

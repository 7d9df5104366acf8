"""Block top-p: each query block keeps the fewest key blocks that hold a given mass of its map, as their means tell it.

Sharp heads so get few blocks and diffuse heads many. Chosen at every call.
"""

from __future__ import annotations

from torch import Tensor

from ..block_mask import BlockMask, top_p
from ..tiled import Tiled
from .block_top_k import scores


def block_top_p(call: Tiled, share: Tensor, always: Tensor, sharpness: Tensor) -> BlockMask:
    """share: the mass that is reached."""
    weights = (scores(call) * sharpness[..., None, None]).softmax(-1)
    return top_p(weights, share, always)

"""Block top-k: each query block keeps the key blocks whose mean fits its own mean best. Chosen at every call."""

from __future__ import annotations

import math

from torch import Tensor

from ..block_mask import BlockMask, top_k
from ..tiled import Tiled


def scores(call: Tiled) -> Tensor:
    """mean(q) mean(k)^T / sqrt(d) of every pair of blocks: float32 (rows, heads, query blocks, key blocks)."""
    return call.q_means @ call.k_means.mT / math.sqrt(call.q.shape[-1])


def block_top_k(call: Tiled, share: Tensor, always: Tensor, sharpness: Tensor) -> BlockMask:
    """share: the share of key blocks."""
    return top_k(scores(call), share, always)

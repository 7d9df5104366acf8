"""Which blocks of a map are computed: one file a pattern, each a function from a tiled call to `BlockMask`."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..block_mask import BlockMask
from ..tiled import Tiled
from .block_top_k import block_top_k
from .block_top_p import block_top_p
from .radial import radial
from .window import window

#: (call, share (heads,), always (key blocks,), sharpness (heads,)) -> lists; see the functions.
Pattern = Callable[[Tiled, Tensor, Tensor, Tensor], BlockMask]

PATTERNS: dict[str, Pattern] = {
    "block top-k": block_top_k,
    "block top-p": block_top_p,
    "window": window,
    "radial": radial,
}

__all__ = ["PATTERNS", "Pattern", "block_top_k", "block_top_p", "radial", "window"]

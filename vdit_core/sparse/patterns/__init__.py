"""Which blocks of a map are computed: one file a pattern, each a function from a tiled call to `BlockLists`."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..block_mask import BlockLists
from ..tiled import Tiled
from .block_top_k import top_blocks
from .block_top_p import mass
from .radial import radial
from .window import window

#: (call, keep (heads,), always (key blocks,), sharpness (heads,)) -> lists; see the functions.
Pattern = Callable[[Tiled, Tensor, Tensor, Tensor], BlockLists]

PATTERNS: dict[str, Pattern] = {"top blocks": top_blocks, "mass": mass, "window": window, "radial": radial}

__all__ = ["PATTERNS", "Pattern", "mass", "radial", "top_blocks", "window"]

"""Which blocks of a map are computed: one file a pattern, each a function from a tiled call to `BlockLists`."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..blocks import BlockLists
from ..tiled import Tiled
from .mass import mass
from .radial import radial
from .top_blocks import top_blocks
from .window import window

#: (call, keep (heads,), always (key blocks,), sharpness (heads,)) -> lists; see the functions.
Pattern = Callable[[Tiled, Tensor, Tensor, Tensor], BlockLists]

PATTERNS: dict[str, Pattern] = {"top blocks": top_blocks, "mass": mass, "window": window, "radial": radial}

__all__ = ["PATTERNS", "Pattern", "mass", "radial", "top_blocks", "window"]

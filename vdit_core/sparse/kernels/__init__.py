"""Who computes a block-sparse map: one file a kernel."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ...attention.triton import triton_works
from ..block_mask import BlockMask
from ..tiled import Tiled
from .flex import Flex
from .gathered import Gathered
from .sol import Sol


class Kernel(Protocol):
    """Attention over listed blocks. int8: whether it wants queries and keys so."""

    name: str
    int8: bool

    def refuses(self, q: Tensor) -> str | None:
        """Why it cannot compute calls like this one, or None."""

    def __call__(self, call: Tiled, mask: BlockMask, sharpness: Tensor) -> Tensor:
        """softmax(sharpness q k^T / sqrt(d)) over the listed blocks, applied to v.

        sharpness: float32 (heads,) or (rows, heads), where q is. Returns (rows, heads, tokens, width of v), in the
        host's order of tokens.
        """


def kernels_for(q: Tensor, pattern: str) -> tuple[Kernel | Sol, ...]:
    """The kernels for calls with such queries, (rows, heads, tokens, head_dim), the exactest first.

    comfy_kitchen's chooses its blocks itself: it serves the pattern "block top-k" where Triton is missing.
    """
    if triton_works(q.device):
        from .triton_blocks import TritonBlocks  # imports Triton

        if TritonBlocks().refuses(q) is None:
            return TritonBlocks(), TritonBlocks(int8=True)
        if Flex().refuses(q) is None:
            return (Flex(),)
    if q.is_cuda and pattern == "block top-k" and (sol := Sol()).refuses(q) is None:
        return (sol,)
    return (Gathered(),)

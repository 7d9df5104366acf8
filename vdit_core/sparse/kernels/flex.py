"""Block-sparse attention by torch's flex_attention, which compiles itself for each shape."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...attention.triton import triton_works
from ..block_mask import BlockMask
from ..tiled import Tiled


@lru_cache(maxsize=1)
def _compiled() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


class Flex:
    """CUDA with Triton, heads whose width is a power of 2."""

    name = "flex_attention"
    int8 = False

    def refuses(self, q: Tensor) -> str | None:
        if q.shape[-1] & (q.shape[-1] - 1):
            return f"it takes heads whose width is a power of 2, not {q.shape[-1]}"
        return None if triton_works(q.device) else "Triton does not work here"

    def __call__(self, call: Tiled, mask: BlockMask, sharpness: Tensor) -> Tensor:
        from torch.nn.attention.flex_attention import BlockMask as FlexMask

        tiles, tokens = call.tiles, call.tiles.grid.tokens
        blocks, counts = (
            x.expand(*call.q.shape[:2], *x.shape[2:]).contiguous() for x in (mask.kv_indices, mask.kv_num_blocks)
        )
        blocks = F.pad(blocks, (0, call.q.shape[2] // tiles.keys - blocks.shape[-1]))
        # The first of every list is the last block: it alone needs the mask that leaves out what is behind the tokens.
        last, others = torch.ones_like(counts), blocks.roll(-1, dims=-1).contiguous()

        def inside(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return key < tokens

        size = (tiles.queries, tiles.keys)
        flex_mask = FlexMask.from_kv_blocks(last, blocks, counts - 1, others, BLOCK_SIZE=size, mask_mod=inside)
        q = call.q * sharpness[..., None, None].to(call.q.dtype)
        return call.back(_compiled()(q, call.k, call.v, block_mask=flex_mask))

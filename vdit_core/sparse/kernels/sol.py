"""Block-sparse attention by comfy_kitchen's sol_attn, which chooses blocks itself and counts the others by their means.

It needs no Triton, so it serves where that is missing; its queries, keys and values are int8 inside.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..tiled import Tiled


class Sol:
    """CUDA with comfy_kitchen 0.2.32 or newer; half quantization, heads 128 wide."""

    name = "comfy_kitchen.sol_attn"
    int8 = False

    def refuses(self, q: Tensor) -> str | None:
        try:
            import comfy_kitchen
        except ImportError:
            return "comfy_kitchen is not installed"
        available = getattr(comfy_kitchen, "sol_attn_is_available", None)
        if available is None or not available(q.device):
            return "this comfy_kitchen has no sol_attn for this device"
        if q.dtype not in (torch.float16, torch.bfloat16) or q.shape[-1] != 128:
            return f"it takes float16 and bfloat16 heads 128 wide, not {q.dtype} heads {q.shape[-1]} wide"
        return None

    def __call__(self, call: Tiled, share: Tensor, sharpness: Tensor) -> Tensor:
        """share: the share of key blocks, (heads,) or (rows, heads) on the CPU. Maps of one share go together."""
        import comfy_kitchen

        rows, heads, _, dim = call.q.shape
        tokens = call.tiles.grid.tokens
        found = torch.empty_like(call.v)
        shares, sharp = share.expand(rows, heads).flatten(), sharpness.cpu().expand(rows, heads).flatten()
        settings = list(zip(shares.tolist(), sharp.tolist(), strict=True))
        for share, sharper in dict.fromkeys(settings):
            maps = [i for i, one in enumerate(settings) if one == (share, sharper)]
            q, k, v = (x.flatten(0, 1)[maps, :tokens, None] for x in (call.q, call.k, call.v))
            for value in range(0, v.shape[-1], dim):
                part = slice(value, value + dim)
                out = comfy_kitchen.sol_attn(
                    q, k, v[..., part].contiguous(), topk_ratio=share, scale=sharper / math.sqrt(dim)
                )
                found.flatten(0, 1)[maps, :tokens, part] = out[:, :, 0]
        return call.back(found)

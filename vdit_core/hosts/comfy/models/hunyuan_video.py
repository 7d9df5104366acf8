"""HunyuanVideo in ComfyUI."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ....call import TokenGrid
from .family import Family, patches


class HunyuanVideo(Family):
    """HunyuanVideo 1 and 1.5: double blocks, then single ones; the prompt's tokens stand before the grid's.

    HunyuanVideo 1.5 is the same class with double blocks alone. A reference picture (I2V "concat") stands between the
    two. The same class with patches of two sides makes pictures.
    """

    name = "HunyuanVideo 1 and 1.5"
    networks = ("comfy.ldm.hunyuan_video.model.HunyuanVideo",)
    blocks = (("double", "double_blocks"), ("single", "single_blocks"))
    self_attention = ""
    text = "before"

    def why_not(self, network: Any) -> str | None:
        return None if len(network.patch_size) == 3 else "it makes pictures, not videos"

    def heads(self, network: Any) -> tuple[int, int]:
        return network.num_heads, network.hidden_size // network.num_heads

    def kind_of(self, network: Any) -> str:
        return f"hunyuan video {network.in_channels} -> {network.out_channels}"

    def grid_of(self, network: Any, x: Tensor, conds: Mapping[str, Any]) -> TokenGrid:
        reference = conds.get("ref_latent")
        before = 0 if reference is None else math.prod(patches(reference, network.patch_size))
        return TokenGrid(*patches(x, network.patch_size), before)

    def layer_told(self, options: Mapping[str, Any], counts: Mapping[str, int]) -> int | None:
        index = options.get("block_index")
        return index if index is None or options.get("block_type") == "double" else counts.get("double", 0) + index

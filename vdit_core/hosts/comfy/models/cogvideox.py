"""CogVideoX in ComfyUI."""

from __future__ import annotations

from typing import Any

from .family import Family


class CogVideoX(Family):
    """CogVideoX: joint blocks; the prompt's tokens stand before the grid's. Version 1.5 patches time, too."""

    name = "CogVideoX"
    networks = ("comfy.ldm.cogvideo.model.CogVideoXTransformer3DModel",)
    self_attention = ""
    text = "before"

    def heads(self, network: Any) -> tuple[int, int]:
        return network.num_attention_heads, network.attention_head_dim

    def kind_of(self, network: Any) -> str:
        return f"cogvideox {network.in_channels} -> {network.out_channels}"

    def patch_of(self, network: Any) -> tuple[int, int, int]:
        return network.patch_size_t or 1, network.patch_size, network.patch_size

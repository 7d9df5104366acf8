"""Kandinsky 5 in ComfyUI."""

from __future__ import annotations

from typing import Any

from .family import Family


class Kandinsky5(Family):
    """Kandinsky 5: self-attention of its own. The blocks of its text encoder tell no index, so they are no layers."""

    name = "Kandinsky 5"
    networks = ("comfy.ldm.kandinsky5.model.Kandinsky5",)
    blocks = (("", "visual_transformer_blocks"),)
    self_attention = "self_attention"
    cross_attention = "cross_attention"

    def heads(self, network: Any) -> tuple[int, int]:
        attention = network.visual_transformer_blocks[0].self_attention
        return attention.num_heads, attention.head_dim

    def kind_of(self, network: Any) -> str:
        return f"kandinsky5 {network.in_visual_dim}"

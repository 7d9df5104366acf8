"""Mochi in ComfyUI."""

from __future__ import annotations

from typing import Any

from .family import Family


class Mochi(Family):
    """Mochi: joint blocks; the prompt's tokens, without its padding, stand behind the grid's."""

    name = "Mochi"
    networks = ("comfy.ldm.genmo.joint_model.asymm_models_joint.AsymmDiTJoint",)
    self_attention = "attn"
    text = "behind"

    def heads(self, network: Any) -> tuple[int, int]:
        return network.num_heads, network.head_dim

    def kind_of(self, network: Any) -> str:
        return f"mochi {network.out_channels}"

    def patch_of(self, network: Any) -> tuple[int, int, int]:
        return 1, network.patch_size, network.patch_size

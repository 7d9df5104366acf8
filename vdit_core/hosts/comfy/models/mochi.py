"""Mochi in ComfyUI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ....call import TokenGrid
from .family import Family, patches


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

    def grid_of(self, network: Any, x: Tensor, conds: Mapping[str, Any]) -> TokenGrid:
        return TokenGrid(*patches(x, (1, network.patch_size, network.patch_size)))

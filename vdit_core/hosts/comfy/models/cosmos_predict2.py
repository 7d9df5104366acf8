"""Cosmos Predict2 in ComfyUI."""

from __future__ import annotations

from typing import Any

from .family import Family


class CosmosPredict2(Family):
    """Cosmos Predict2: self-attention of its own, the grid's tokens alone."""

    name = "Cosmos Predict2"
    networks = ("comfy.ldm.cosmos.predict2.MiniTrainDIT",)

    def heads(self, network: Any) -> tuple[int, int]:
        return network.num_heads, network.model_channels // network.num_heads

    def kind_of(self, network: Any) -> str:
        return f"cosmos predict2 {network.in_channels} -> {network.out_channels}"

    def patch_of(self, network: Any) -> tuple[int, int, int]:
        return network.patch_temporal, network.patch_spatial, network.patch_spatial

"""LTX-Video in diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....call import TokenGrid
from .family import Family


class LTXVideo(Family):
    """LTX-Video: self-attention of its own, of latents that come as tokens."""

    transformers = ("LTXVideoTransformer3DModel",)

    def kind_of(self, config: Any) -> str:
        return f"ltx {config.in_channels} -> {config.out_channels}"

    def size_of(self, inputs: Mapping[str, Any]) -> tuple[int, int, int]:
        return inputs["num_frames"], inputs["height"], inputs["width"]

    def grid_of(self, model: Any, inputs: Mapping[str, Any]) -> TokenGrid:
        frames, height, width = self.size_of(inputs)
        return TokenGrid(frames, height, width)

"""CogVideoX in diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....call import TokenGrid
from .family import Family, patches


class CogVideoX(Family):
    """CogVideoX: joint blocks; the prompt's tokens stand before the grid's. Its latents have frames before channels."""

    transformers = ("CogVideoXTransformer3DModel",)
    text = "before"

    def kind_of(self, config: Any) -> str:
        return f"cogvideox {config.in_channels} -> {config.out_channels}"

    def size_of(self, inputs: Mapping[str, Any]) -> tuple[int, int, int]:
        _, frames, _, height, width = inputs["hidden_states"].shape
        return frames, height, width

    def grid_of(self, model: Any, inputs: Mapping[str, Any]) -> TokenGrid:
        config = model.config
        return patches(self.size_of(inputs), (config.patch_size_t or 1, config.patch_size, config.patch_size))

    def branches(self, pipe: Any) -> tuple[str, ...]:
        return ("cond", "uncond") if pipe.guidance_scale > 1 else ("cond",)

    def levels(self, pipe: Any) -> list[float]:
        """The share of noise, 1 without any signal: its schedulers have no sigmas."""
        kept = pipe.scheduler.alphas_cumprod
        levels: list[float] = (1 - kept[pipe.scheduler.timesteps.long().cpu()]).sqrt().tolist()
        return levels

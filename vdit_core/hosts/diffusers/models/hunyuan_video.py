"""HunyuanVideo in diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from ....call import TokenGrid
from .family import Family, patches


class HunyuanVideo(Family):
    """HunyuanVideo: double blocks, then single ones; the prompt's tokens stand behind the grid's, padding masked.

    Its pipeline does not tell beforehand whether it computes a negative prompt (true_cfg_scale): say so to `attach`.
    """

    transformers = ("HunyuanVideoTransformer3DModel",)
    blocks: ClassVar[tuple[tuple[str, str], ...]] = (
        ("double", "transformer_blocks"),
        ("single", "single_transformer_blocks"),
    )
    attention = "attn"
    text = "behind"
    prompts_together = False

    def kind_of(self, config: Any) -> str:
        return f"hunyuan video {config.in_channels} -> {config.out_channels}"

    def grid_of(self, model: Any, inputs: Mapping[str, Any]) -> TokenGrid:
        config = model.config
        return patches(self.size_of(inputs), (config.patch_size_t, config.patch_size, config.patch_size))

    def noise_of(self, model: Any, inputs: Mapping[str, Any]) -> Tensor:
        noise: Tensor = inputs["hidden_states"][:, : model.config.out_channels]
        return noise

    def branches(self, pipe: Any) -> tuple[str, ...]:
        return ("cond",)


class HunyuanVideo15(HunyuanVideo):
    """HunyuanVideo 1.5: double blocks alone; its pipeline's guider tells which prompts it computes."""

    transformers = ("HunyuanVideo15Transformer3DModel",)
    blocks: ClassVar[tuple[tuple[str, str], ...]] = (("", "transformer_blocks"),)

    def branches(self, pipe: Any) -> tuple[str, ...]:
        return ("cond", "uncond") if pipe.guider.num_conditions > 1 else ("cond",)

    def cfg(self, pipe: Any) -> float | None:
        return float(pipe.guider.guidance_scale) if pipe.guider.num_conditions > 1 else 1.0

"""Mochi in diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....call import TokenGrid
from .family import Family, patches


class Mochi(Family):
    """Mochi: joint blocks; the prompt's tokens, without its padding, stand behind the grid's.

    Its processor computes one row after the other, since each prompt has its own length: so a call holds one video, and
    a batch of videos cannot share maps.
    """

    transformers = ("MochiTransformer3DModel",)
    text = "behind"

    def kind_of(self, config: Any) -> str:
        return f"mochi {config.in_channels}"

    def grid_of(self, model: Any, inputs: Mapping[str, Any]) -> TokenGrid:
        return patches(self.size_of(inputs), (1, model.config.patch_size, model.config.patch_size))

    def samples(self, rows: int, branches: tuple[str, ...]) -> int:
        samples = super().samples(rows, branches)
        if samples > 1:
            raise RuntimeError(
                f"diffusers computes the attention of {samples} Mochi videos one after the other, so they cannot share "
                "maps. Sample one video at a time."
            )
        return samples

    def levels(self, pipe: Any) -> list[float]:
        return [1 - level for level in super().levels(pipe)]  # its schedulers rise

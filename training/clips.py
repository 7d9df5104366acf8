"""The training clips: rendered from ranges of seeds that never overlap."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vdit_core.tiny_wan.captions import Caption

from .painter import render
from .world import Scenes, Truth, random_captions

#: First seed of each set. Seeds below one million are held out.
HELD_OUT, PIXELS, LATENTS = 0, 1_000_000, 2_000_000


@dataclass(frozen=True)
class Clips:
    """Rendered clips: video uint8 (clips, 3, frames, height, width), with captions and ground truth."""

    video: Tensor
    captions: list[Caption]
    truth: Truth


def clips(first: int, count: int, device: str, batch: int = 64) -> Clips:
    """Render the clips of seeds first .. first + count - 1."""
    seeds = torch.arange(first, first + count)
    captions = random_captions(seeds)
    scenes = Scenes.sample(seeds, captions, device)
    parts = [(render(scenes[i : i + batch]) * 255).round().byte() for i in range(0, count, batch)]
    return Clips(torch.cat(parts), captions, scenes.truth())


def signed(video: Tensor) -> Tensor:
    """uint8 0..255 to float32 -1..1, as the VAE takes it."""
    return video.float() / 127.5 - 1

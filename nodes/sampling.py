"""Sampling that a node does itself: what it asks for, and videos that all start from the same noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.samplers
import torch.nn.functional as F
from comfy_api.latest import io
from torch import Tensor

from nodes import common_ksampler

from ..vdit_core.call import Interceptor
from ..vdit_core.hosts.comfy import attach
from . import progress
from .live_batch import batch
from .packed import need_video_alone

_EDGE = 320  # px of a scored video's longer side: enough to see where things are, and many videos fit the memory


def settings() -> list[io.Input]:
    """The settings of a sampler, as KSampler has them."""
    samplers = comfy.samplers.KSampler
    return [
        io.Int.Input(
            "seed", default=0, min=0, max=2**64 - 1, control_after_generate=True, tooltip="The seed of the noise."
        ),
        io.Int.Input("steps", default=20, min=1, max=10_000, tooltip="The number of sampling steps of each video."),
        io.Float.Input(
            "cfg", default=6.0, min=0.0, max=100.0, step=0.1, tooltip="The scale of classifier-free guidance."
        ),
        io.Combo.Input(
            "sampler_name", display_name="sampler", options=samplers.SAMPLERS, default="euler",
            tooltip="The sampler, as in KSampler.",
        ),
        io.Combo.Input(
            "scheduler", options=samplers.SCHEDULERS, default="simple", tooltip="The scheduler, as in KSampler.",
        ),
    ]  # fmt: skip


def inputs() -> list[io.Input]:
    """All that a node asks for that samples one prompt."""
    return [
        io.Conditioning.Input("positive", display_name="prompt", tooltip="The prompt of all videos."),
        io.Conditioning.Input("negative", display_name="negative prompt", tooltip="The negative prompt of all videos."),
        io.Vae.Input("vae", tooltip="The VAE that decodes the videos. They are compared as pictures."),
        io.Latent.Input(
            "latent", display_name="empty latent", tooltip="One empty latent. Every video starts from the same noise."
        ),
        *settings(),
    ]


@dataclass
class Sampling:
    """The inputs of `inputs`, and the model they are for."""

    model: Any
    positive: list[Any]
    negative: list[Any]
    vae: Any
    latent: dict[str, Any]
    seed: int
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str

    def __post_init__(self) -> None:
        need_video_alone(self.latent["samples"])

    def sample(self, editor: Interceptor | None = None, count: int = 1) -> Tensor:
        """The latents of so many videos in one batch, with an editor or observer on the model.

        Raises:
            HostError: if the model's attention cannot be reached: then nothing could be edited or measured.
        """
        positive, repeated = batch([self.positive] * count, self.latent)
        model = self.model if editor is None else attach(self.model, editor, required=True)
        return self.run(model, positive, repeated)

    def run(self, model: Any, positive: list[Any], latent: dict[str, Any]) -> Tensor:
        """The latents of a batch, by a model as it is patched."""
        (found,) = common_ksampler(
            model, self.seed, self.steps, self.cfg, self.sampler_name, self.scheduler, positive, self.negative, latent
        )
        return found["samples"]

    def decode(self, latents: Tensor) -> Tensor:
        """One video, float in [0, 1], (1, 3, frames, height, width), its longer side at most _EDGE px."""
        progress.stop_if_asked()
        pictures = self.vae.decode(latents)
        frames = pictures.reshape(-1, *pictures.shape[-3:]).movedim(-1, 1).float().cpu()
        scale = _EDGE / max(frames.shape[-2:])
        if scale < 1:
            frames = F.interpolate(frames, scale_factor=scale, mode="area")
        return frames.transpose(0, 1)[None].clamp(0, 1)

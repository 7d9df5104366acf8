"""What the demo model shows while it samples: the first frame of every video of the batch.

ComfyUI's own preview shows one video only, in the colours of Wan's VAE, and only where it is switched on. The demo VAE
decodes a frame in 0.1 s of a core, half a step's time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.utils
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...reporting.labelled import beside, frames

_KEY = "vdit_demo_preview"
#: Steps from one preview to the next, and pixels of the longer side of what is sent.
EVERY, SIZE = 5, 512


def add(model: Any, vae: Any) -> None:
    """Give a demo MODEL its preview. The frames are decoded where the VAE lies: nothing is moved for them."""
    latent_format = model.model.latent_format
    latent_format.latent_rgb_factors = None  # ComfyUI's preview, in wrong colours, would take turns with this one

    def sample(
        executor: Any, noise: Any, latent: Any, sampler: Any, sigmas: Any, mask: Any = None, callback: Any = None,
        *args: Any, **options: Any,
    ) -> Any:  # fmt: skip
        if callback is not None:
            callback = _shown(callback, lambda x0: _picture(vae.first_stage_model, latent_format.process_out(x0)))
        return executor(noise, latent, sampler, sigmas, mask, callback, *args, **options)

    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, _KEY, sample)


def _shown(callback: Callable[..., Any], picture: Callable[[Tensor], Any]) -> Callable[..., Any]:
    def told(step: int, x0: Tensor, x: Tensor, total: int) -> Any:
        result = callback(step, x0, x, total)
        if step % EVERY == EVERY - 1:
            comfy.utils.ProgressBar(total).update_absolute(step + 1, total, ("JPEG", picture(x0), SIZE))
        return result

    return told


@torch.no_grad()
def _picture(decoder: Any, latents: Tensor) -> Any:
    """The first frame of each video, which the VAE decodes without the others. latents: (videos, 16, frames, height,
    width), as the VAE has them."""
    weight = next(decoder.parameters())
    first = latents[:, :, :1].to(weight.device, weight.dtype)
    clips = ((torch.cat([decoder.decode(one[None]) for one in first]) + 1) / 2).clamp(0, 1)
    scale = max(1, SIZE // max(clips.shape[-2], clips.shape[-1] * len(clips)))
    return frames(beside([("", clip) for clip in clips], scale))[0]

"""Latents of several streams, as LTX-2's of video and audio: ComfyUI samples them packed as one tensor."""

from __future__ import annotations

from typing import Any

import comfy.utils
from torch import Tensor


def is_packed(samples: Any) -> bool:
    """Whether a LATENT's samples are several streams."""
    return bool(getattr(samples, "is_nested", False))


def packed(samples: Any) -> Tensor:
    """A LATENT's samples as a sampler sees them: (videos, 1, values) if they are several streams, else as they are."""
    found: Tensor = comfy.utils.pack_latents(samples.unbind())[0] if is_packed(samples) else samples
    return found


def repeated(samples: Any, count: int) -> Any:
    """A LATENT's samples of one video, so many times."""
    if not is_packed(samples):
        return samples.repeat(count, *[1] * (samples.dim() - 1))
    return type(samples)([repeated(one, count) for one in samples.unbind()])


def need_video_alone(samples: Any) -> None:
    """Raises ValueError for a LATENT of several streams, which a node that samples by itself cannot take."""
    if is_packed(samples):
        raise ValueError(
            "The latent holds video and audio, and this node samples and decodes videos by itself. Use Record "
            "Attention, Transfer Attention or Live Transfer with your own sampler, or a latent of the video alone."
        )

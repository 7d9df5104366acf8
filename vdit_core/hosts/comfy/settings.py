"""How a ComfyUI run is sampled, in its user's words."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from ...provenance import Provenance, fingerprint
from . import graph
from .samplers import name_of

_SIGMAS = "sigmas"  # the input of SamplerCustomAdvanced that a scheduler is behind


def provenance(
    guider: Any, sampler: Any, start: Tensor, noise: Tensor, seed: int | None, sampled_by: str | None
) -> Provenance:
    """The settings of a run.

    start: what the sampler begins with, if that is noise, else the noise that it adds. noise: of the video's size.
    """
    latents = guider.model_patcher.model.latent_format
    spatial, temporal = (getattr(latents, f"{way}_downscale_ratio", 1) for way in ("spacial", "temporal"))
    size: dict[str, int] = {}
    if noise.dim() == 5:
        frames, height, width = noise.shape[-3:]
        size = {"width": width * spatial, "height": height * spatial, "frames": (frames - 1) * temporal + 1}
    mark = fingerprint(start)
    return Provenance(
        **size,
        shift=_number(getattr(guider.model_patcher.get_model_object("model_sampling"), "shift", None)),
        sampler=name_of(sampler),
        scheduler=graph.setting(sampled_by, "scheduler", (str,), _SIGMAS),
        denoise=_number(graph.setting(sampled_by, "denoise", (int, float), _SIGMAS)),
        cfg=_number(getattr(guider, "cfg", None)),
        seed=seed if mark else None,
        noise=mark,
    )


def noise_remedy(sampled_by: str | None, other_inputs: bool) -> str:
    """What to do if the videos of a batch start from different noise.

    other_inputs: whether the sampler was given other inputs than Live Transfer's own.
    """
    sampling = [*graph.nearest(sampled_by), *graph.upstream(sampled_by, "noise")]
    packs = [(node["class_type"], pack) for node in sampling if (pack := graph.foreign_pack(node)) is not None]
    if packs and not other_inputs:
        name, pack = packs[0]
        return (
            f"{name} ({pack}) draws other noise for each video of a batch, although Live Transfer's latent asks for "
            "the same (batch_index). Sample with ComfyUI's KSampler or SamplerCustomAdvanced."
        )
    return "Connect Live Transfer's own latent to the sampler: it gives all of the batch the same noise."


def _number(value: Any) -> float | None:
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None

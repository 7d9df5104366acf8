"""How a run was made: the settings it was sampled with, and a fingerprint of the noise it started from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

_VALUES = 16  # of each sample's noise; two draws agree in all of them as good as never


@dataclass(frozen=True)
class Provenance:
    """The settings that a run was sampled with; None (or empty) is what the host does not know.

    width, height: of the video, in pixels. frames: of the video.
    shift: of the model's noise schedule. sampler, scheduler: their names in ComfyUI. denoise: the sampler's setting.
    cfg: the guidance scale. seed: of the starting noise.
    noise: a fingerprint of the starting noise, some of its values for each sample; empty where a run goes on from
        another one's latent, and adds none.
    """

    width: int | None = None
    height: int | None = None
    frames: int | None = None
    shift: float | None = None
    sampler: str | None = None
    scheduler: str | None = None
    denoise: float | None = None
    cfg: float | None = None
    seed: int | None = None
    noise: tuple[tuple[float, ...], ...] = ()


def fingerprint(noise: Tensor) -> tuple[tuple[float, ...], ...]:
    """Some values of each sample's noise, (samples, ...); nothing if it is no noise: zeros, or not finite."""
    values = noise.detach().flatten(1)
    places = [i * values.shape[1] // _VALUES for i in range(_VALUES)]
    picked = values[:, places].float().cpu()
    if not bool(picked.isfinite().all()) or not bool(picked.any(1).all()):
        return ()
    return tuple(tuple(round(value, 4) for value in row) for row in picked.tolist())

"""How alike two clips are. Clips are float in [0, 1], (clips, 3, frames, height, width); results are one per clip."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from importlib.util import find_spec

import numpy as np
import torch
from kornia.color import rgb_to_grayscale
from kornia.filters import sobel
from kornia.metrics import ssim as ssim_map
from torch import Tensor

#: Equal clips have no finite PSNR, and JSON no infinity: dB.
MAX_PSNR = 100.0


@dataclass(frozen=True)
class Quality:
    """How near a clip is to another: psnr in dB, at most `MAX_PSNR`; ssim; flip, nan without flip-evaluator."""

    psnr: float
    ssim: float
    flip: float

    def as_json(self) -> dict[str, float | None]:
        return {name: round(value, 4) if math.isfinite(value) else None for name, value in asdict(self).items()}


def quality(reference: Tensor, clip: Tensor) -> Quality:
    """Of one clip against one reference, (1, 3, frames, height, width) both."""
    return Quality(
        psnr=min(float(psnr(reference, clip)), MAX_PSNR),
        ssim=float(ssim(reference, clip)),
        flip=float(flip(reference, clip)) if find_spec("flip_evaluator") else math.nan,
    )


def luminance(video: Tensor) -> Tensor:
    """Frames of all clips as grey pictures, (clips * frames, 1, height, width)."""
    return rgb_to_grayscale(video.transpose(1, 2).flatten(0, 1).float())


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio over a whole clip, dB; infinite for equal clips."""
    return -10 * ((a - b) ** 2).flatten(1).mean(1).log10()


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of the luminance (Wang et al., 2004; 11 x 11 Gaussian window), mean over frames."""
    return ssim_map(luminance(a), luminance(b), window_size=11).unflatten(0, (len(a), -1)).flatten(1).mean(1)


def flip(a: Tensor, b: Tensor, frames: int = 4) -> Tensor:
    """FLIP (Andersson et al., 2020): how large a difference a person sees between one picture and another in its place,
    in colour too; 0 for equal clips, at most 1. Mean over the pixels of so many evenly spaced frames.

    Computed by NVIDIA's package flip-evaluator, as on a display of 67 px a degree of sight.

    Raises:
        ModuleNotFoundError: without that package.
    """
    import flip_evaluator

    count = a.shape[2]
    chosen = torch.linspace(0, count - 1, min(frames, count)).round().long().tolist()
    return torch.tensor([
        sum(
            flip_evaluator.evaluate(*(_picture(clip[:, n]) for clip in pair), "LDR", applyMagma=False)[1]
            for n in chosen
        )
        / len(chosen)
        for pair in zip(a, b, strict=True)
    ])  # fmt: skip


def _picture(frame: Tensor) -> np.ndarray:
    """(3, height, width) as FLIP takes it, (height, width, 3)."""
    return np.ascontiguousarray(frame.float().clamp(0, 1).permute(1, 2, 0).cpu().numpy())


def edge_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation of the Sobel gradient magnitudes of the luminance, mean over frames."""
    x, y = (sobel(luminance(video)).flatten(1) for video in (a, b))
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    return torch.cosine_similarity(x, y, dim=1).unflatten(0, (len(a), -1)).mean(1)


def motion_agreement(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation, over pixels, of the change of luminance from each frame to the next; mean over frame pairs.

    1: the same things change at the same places, -1: in the opposite way, 0: unrelated, or one of the two stands still.

    Raises:
        ValueError: if the clips have a single frame.
    """
    if a.shape[2] < 2:
        raise ValueError("Motion is a change from frame to frame; these clips have a single frame.")
    x, y = (luminance(video).unflatten(0, (len(video), -1)).diff(dim=1).flatten(2) for video in (a, b))
    x, y = x - x.mean(2, keepdim=True), y - y.mean(2, keepdim=True)
    return torch.cosine_similarity(x, y, dim=2).mean(1)


def palette_overlap(a: Tensor, b: Tensor, levels: int = 8) -> Tensor:
    """How far two clips have the same colours, wherever they are: 1 for the same, 0 for none in common.

    Histogram intersection (Swain and Ballard, 1991) over all pixels of all frames, in levels x levels x levels bins of
    RGB.
    """

    def histogram(clip: Tensor) -> Tensor:
        r, g, b = (clip.clamp(0, 1) * levels).long().clamp(max=levels - 1).unbind(0)
        counts = torch.bincount(((r * levels + g) * levels + b).flatten(), minlength=levels**3)
        return counts / counts.sum()

    return torch.stack([torch.minimum(histogram(x), histogram(y)).sum() for x, y in zip(a, b, strict=True)])

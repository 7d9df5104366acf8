"""How clearly an object is drawn: a smear has weak outlines, whatever it is the smear of."""

from __future__ import annotations

import torch
from kornia.filters import sobel
from torch import Tensor

from ..metrics import luminance
from .probe import Reading


def outlines(clips: Tensor, seen: Reading) -> tuple[Tensor, Tensor]:
    """How strong the edges within the object's place are in each clip, summed over its pixels of all frames, and how
    many pixels these are: (clips,) each.

    clips: float in [0, 1], (clips, 3, frames, height, width), on the CPU. seen: what the probe reads of them.
    """
    edges = sobel(luminance(clips)).unflatten(0, (len(clips), -1))[:, :, 0]
    down, across = ((torch.arange(length) + 0.5) for length in edges.shape[-2:])
    within = _within(down, seen.y, seen.height)[..., None] & _within(across, seen.x, seen.width)[..., None, :]
    return (edges * within).sum((1, 2, 3)), within.sum((1, 2, 3))


def _within(places: Tensor, centre: Tensor, length: Tensor) -> Tensor:
    """Which places lie in a stretch around each centre: (clips, frames, places)."""
    return (places - centre.cpu()[..., None]).abs() <= length.cpu()[..., None] / 2

"""Editing a clip with the demo model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from ..footage.config import EditConfig, FootageError
from ..footage.fit import check_fit
from ..hosts.diffusers.footage import edit_footage
from ..reporting.video import read_clip
from ..tiny_wan.files import CLIP, FRAMES, SIZE, STEPS, WEIGHTS
from ..transfer import TransferConfig, TransferReport
from .model import DemoModel


def read(path: str) -> Tensor:
    """A clip for the demo model, float in [0, 1], (1, 3, 17, 128, 128); "demo" is the one that ships.

    A larger one of the same shape, such as `vdit generate` writes, is scaled down.

    Raises:
        FootageError: if the demo model cannot take it. ValueError: if it cannot be read.
    """
    clip = read_clip(WEIGHTS / CLIP if path == "demo" else Path(path))
    _, frames, height, width = clip.shape
    check_fit(width, height, frames, 8, 4)
    if frames != FRAMES or height != width or height % SIZE:
        raise FootageError(
            f"{path} has {frames} frames of {width} × {height} px. The demo model knows clips of {FRAMES} frames, "
            f"{SIZE} × {SIZE} px (or a multiple, which is scaled down), of its own world: try the clip demo, or one "
            "that `vdit generate` wrote."
        )
    return F.interpolate(clip.transpose(0, 1), size=(SIZE, SIZE), mode="area").transpose(0, 1)[None]


def edit(
    model: DemoModel,
    clip: Tensor,
    source: str,
    targets: Sequence[str],
    config: EditConfig | None = None,
    where: TransferConfig | None = None,
    steps: int = STEPS,
    seed: int = 0,
    on_step: Callable[[], None] | None = None,
) -> tuple[Tensor, TransferReport]:
    """The edited clips, float in [0, 1], (targets, 3, 17, 128, 128), and what the transfer of maps did.

    clip: as `read` gives it. source: what it shows.

    Raises:
        UnknownWord: if a prompt has a word that the model never saw. As `edit_footage` otherwise.
    """
    prompts = [model.text.encode([text]).to(model.device) for text in (source, *targets, "")]
    latents = model.encode(clip)
    edits, report = edit_footage(
        model.pipe, latents, prompts[0], prompts[1:-1], prompts[-1], config, where, steps, seed, on_step=on_step
    )
    return model.decode(edits), report

"""Draws docs/images/transfer.webp: a source, its target with and without the source's attention. Demo model, seed 1."""

from __future__ import annotations

from pathlib import Path

import torch

from vdit_core import Recorder, Transfer, attach
from vdit_core.demo.model import DemoModel
from vdit_core.reporting.labelled import side_by_side
from vdit_core.reporting.video import FPS
from vdit_core.tiny_wan.captions import Caption

FILE = Path(__file__).parents[1] / "docs" / "images" / "transfer.webp"
SOURCE, TARGET = str(Caption("car")), str(Caption("car", season="winter"))


def main() -> None:
    """Sample the three, and write the picture."""
    model, recorder = DemoModel.load(), Recorder()
    with attach(model.pipe, recorder):
        source = model.sample([SOURCE], [1])
    with attach(model.pipe, Transfer(recorder.store)):
        moved = model.sample([TARGET], [1])
    clips = model.decode(torch.cat([source, moved, model.sample([TARGET], [1])]))
    labels = (f"source: {SOURCE}", "… in the winter, with the source's attention", "… in the winter, prompt alone")
    first, *rest = side_by_side(dict(zip(labels, clips, strict=True)), 3)
    first.save(FILE, save_all=True, append_images=rest, duration=1000 // FPS, loop=0, quality=82, method=6)
    print(FILE, f"{FILE.stat().st_size / 2**20:.2f} MiB, {len(rest) + 1} frames of {first.width} x {first.height} px")


if __name__ == "__main__":
    main()

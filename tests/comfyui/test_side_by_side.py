"""Side by Side in the real ComfyUI."""

from __future__ import annotations

import pytest
from comfyui import graphs
from comfyui.server import PromptFailed
from PIL import Image


def picture(color: int, width: int = 96, frames: int = 2) -> dict:
    return graphs.node("EmptyImage", width=width, height=64, batch_size=frames, color=color)


def shown(labels: str = "red\ngreen", second: dict | None = None, **changes) -> dict:
    settings = {"direction": "right", "enlarge": 1} | changes
    return {
        "first": picture(0xFF0000),
        "second": second or picture(0x00FF00),
        "both": graphs.node("VDiT_SideBySide", first=["first", 0], second=["second", 0], labels=labels, **settings),
        "save": graphs.node("SaveImage", images=["both", 0], filename_prefix="both"),
    }


def test_two_videos_with_their_labels(server):
    server.run(shown())
    files = sorted((server.base / "output").glob("both_*.png"))
    assert len(files) == 2
    with Image.open(files[0]) as sheet:
        assert sheet.width == 200
        assert sheet.height > 76
        assert (sheet.getpixel((90, sheet.height - 8)), sheet.getpixel((110, sheet.height - 8))) == (
            (255, 0, 0),
            (0, 255, 0),
        )
        head = sheet.crop((0, 0, 96, 16)).convert("L")
        assert head.getextrema()[0] < 80 < 240 < head.getextrema()[1]


def test_more_labels_than_videos_are_refused(server):
    with pytest.raises(PromptFailed, match="3 labels for 2 videos"):
        server.run(shown("a\nb\nc"))


def test_videos_of_other_lengths_are_refused(server):
    with pytest.raises(PromptFailed, match=r"red: 96 x 64 px, 2 frames; green: 96 x 64 px, 3 frames"):
        server.run(shown(second=picture(1, frames=3)))

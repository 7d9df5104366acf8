"""While the demo model samples, a decoded frame of each video is sent to the page."""

from __future__ import annotations

import io

import torch
from comfyui import graphs
from PIL import Image
from torch import Tensor


def decoded(files: list) -> Tensor:
    """The first frame of a saved video, mean colours of 8 x 8 px."""
    with Image.open(files[0]) as frame:
        return small(frame)


def small(picture: Image.Image) -> Tensor:
    pixels = torch.tensor(list(picture.convert("RGB").resize((16, 16), Image.Resampling.BOX).getdata()))
    return pixels.float().flatten()


def test_a_picture_every_five_steps_that_comes_to_be_the_video(server):
    graph = graphs.demo() | {
        "sample": graphs.sampler(["demo", 0], "source", steps=10),
        "decode": graphs.node("VAEDecode", samples=["sample", 0], vae=["demo", 2]),
        "save": graphs.node("SaveImage", images=["decode", 0], filename_prefix="preview"),
    }
    found = server.run(graph)
    assert len(found.previews) == 2
    video = decoded(sorted((server.base / "output").glob("preview_*.png")))
    last = Image.open(io.BytesIO(found.previews[-1]))
    assert last.size == (512, 512)
    assert (small(last) - video).abs().mean() < 6  # of 255


def test_all_videos_of_a_batch_are_shown(server):
    found = server.run(graphs.live(targets=1, steps=5))
    (picture,) = found.previews
    assert Image.open(io.BytesIO(picture)).size == (512, 252)

"""Writes and reads clips as video files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..atomic import whole_file

FPS = 8


def write_mp4(pictures: Sequence[Image.Image], path: Path, fps: int = FPS, crf: int = 16) -> None:
    """Write pictures of one even size as an H.264 file that every browser plays; a lower crf is nearer to them."""
    with whole_file(path) as part, av.open(str(part), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height = pictures[0].size
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf)}
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")))
        container.mux(stream.encode())


def read_clip(path: Path) -> Tensor:
    """The frames of a video file, float in [0, 1], (3, frames, height, width).

    Raises:
        ValueError: if it holds no video that can be read.
    """
    try:
        with av.open(str(path)) as container:
            pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except (av.error.FFmpegError, IndexError) as error:
        raise ValueError(f"{path} is not a video that can be read ({error}).") from None
    if not pictures:
        raise ValueError(f"{path} holds no frames.")
    return torch.from_numpy(np.stack(pictures)).permute(3, 0, 1, 2).float() / 255

"""Writes clips for people to look at: MP4 files and contact sheets with labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..atomic import whole_file

FPS = 8
_INK, _PAPER = (30, 30, 34), (250, 250, 248)
_LABEL = 34


def frames(clip: Tensor) -> list[Image.Image]:
    """The frames of a clip, float in [0, 1], (3, frames, height, width)."""
    pixels = (clip.clamp(0, 1) * 255).round().byte().permute(1, 2, 3, 0).cpu().numpy()
    return [Image.fromarray(frame) for frame in pixels]


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


def side_by_side(clips: dict[str, Tensor], scale: int = 3) -> list[Image.Image]:
    """One picture per frame, the clips next to each other under their labels; of even size, as videos must be."""
    columns = {label: frames(clip) for label, clip in clips.items()}
    return [
        _row({label: column[i] for label, column in columns.items()}, scale)
        for i in range(len(next(iter(columns.values()))))
    ]


def _row(pictures: dict[str, Image.Image], scale: int) -> Image.Image:
    width, height = (scale * n for n in next(iter(pictures.values())).size)
    gap = 8
    across, down = len(pictures) * (width + gap) - gap, height + _LABEL
    sheet = Image.new("RGB", (across + across % 2, down + down % 2), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, (label, picture) in enumerate(pictures.items()):
        left = i * (width + gap)
        draw.text((left + 4, 7), _fit(draw, label, width - 8), _INK, font=_font(17))
        sheet.paste(picture.resize((width, height), Image.Resampling.BICUBIC), (left, _LABEL))
    return sheet


def contact_sheet(clips: dict[str, Tensor], columns: int = 6, scale: float = 1.5) -> Image.Image:
    """One row of evenly spaced frames per clip, each under its label."""
    rows = []
    for label, clip in clips.items():
        every = frames(clip)
        chosen = [every[round(i * (len(every) - 1) / (columns - 1))] for i in range(columns)]
        width, height = (round(scale * n) for n in every[0].size)
        row = Image.new("RGB", (columns * (width + 4) - 4, height + _LABEL), _PAPER)
        draw = ImageDraw.Draw(row)
        draw.text((4, 7), _fit(draw, label, row.width - 8), _INK, font=_font(17))
        for i, picture in enumerate(chosen):
            row.paste(picture.resize((width, height), Image.Resampling.BICUBIC), (i * (width + 4), _LABEL))
        rows.append(row)
    sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), _PAPER)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _fit(draw: ImageDraw.ImageDraw, text: str, width: int) -> str:
    """Shorten a label until it fits."""
    short = text
    while short and draw.textlength(short, font=_font(17)) > width:
        short = short[:-2].rstrip(" .") + "…" if len(short) > 2 else ""
    return short

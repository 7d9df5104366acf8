"""Clips under their labels: side by side, frame for frame, or as a contact sheet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

Direction = Literal["right", "down", "grid"]

_INK, _PAPER = (30, 30, 34), (250, 250, 248)
_GAP = 8
#: Fonts with more letters than Pillow's own; Pillow finds those that the system has by their names.
_FONTS = (
    "DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "msyh.ttc", "malgun.ttf", "YuGothM.ttc", "PingFang.ttc",
    "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc", "wqy-zenhei.ttc", "arialuni.ttf", "Arial Unicode.ttf",
)  # fmt: skip

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def frames(clip: Tensor) -> list[Image.Image]:
    """The frames of a clip, float in [0, 1], (3, frames, height, width)."""
    pixels = (clip.clamp(0, 1) * 255).round().byte().permute(1, 2, 3, 0).cpu().numpy()
    return [Image.fromarray(frame) for frame in pixels]


def side_by_side(clips: dict[str, Tensor], scale: int = 3) -> list[Image.Image]:
    """One picture per frame, the clips next to each other under their labels; of even size, as videos must be."""
    return frames(beside(list(clips.items()), scale))


def beside(clips: Sequence[tuple[str, Tensor]], scale: int = 1, direction: Direction = "right") -> Tensor:
    """Clips in one picture, each below its label.

    Args:
        clips: labels and clips, float in [0, 1], (3, frames, height, width), all of one size. Where no clip has a
            label, no room is left for one.
        scale: how many times as large the pixels are; 1 leaves every value as it is.
        direction: where the next clip is: "right" or "down"; "grid" is about as many across as down.

    Returns:
        (3, frames, height, width), float32 on the CPU, both sides even, as a video's must be.

    Raises:
        ValueError: for clips of different sizes, or letters that no font here has.
    """
    sizes = {tuple(clip.shape) for _, clip in clips}
    if len(sizes) != 1:
        told = "; ".join(f"{label or n}: {_size(clip)}" for n, (label, clip) in enumerate(clips, 1))
        raise ValueError(f"The videos have different sizes ({told}). Give videos of one size and length.")
    heads = _labels([label for label, _ in clips], clips[0][1].shape[-1] * scale)
    tiles = [
        torch.cat([head.expand(-1, clip.shape[1], -1, -1), _enlarged(clip, scale)], -2)
        for head, (_, clip) in zip(heads, clips, strict=True)
    ]
    across = {"right": len(tiles), "down": 1, "grid": math.ceil(math.sqrt(len(tiles)))}[direction]
    tiles += [_paper(tiles[0], -1, tiles[0].shape[-1])] * (-len(tiles) % across)
    sheet = _joined([_joined(tiles[n : n + across], -1) for n in range(0, len(tiles), across)], -2)
    for side in (-1, -2):
        if sheet.shape[side] % 2:
            sheet = torch.cat([sheet, _paper(sheet, side, 1)], side)
    return sheet


def contact_sheet(clips: dict[str, Tensor], columns: int = 6, scale: float = 1.5) -> Image.Image:
    """One row of evenly spaced frames per clip, each under its label."""
    rows = []
    for label, clip in clips.items():
        every = frames(clip)
        chosen = [every[round(i * (len(every) - 1) / (columns - 1))] for i in range(columns)]
        width, height = (round(scale * n) for n in every[0].size)
        across = columns * (width + 4) - 4
        font = _font(17, label)
        head = _bar(_wrapped(label, across - 8, font), across, font)
        row = Image.new("RGB", (across, height + head.height), _PAPER)
        row.paste(head, (0, 0))
        for i, picture in enumerate(chosen):
            row.paste(picture.resize((width, height), Image.Resampling.BICUBIC), (i * (width + 4), head.height))
        rows.append(row)
    sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), _PAPER)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _size(clip: Tensor) -> str:
    return f"{clip.shape[3]} x {clip.shape[2]} px, {clip.shape[1]} frames"


def _enlarged(clip: Tensor, scale: int) -> Tensor:
    clip = clip.float().cpu()
    if scale == 1:
        return clip
    return F.interpolate(clip.transpose(0, 1), scale_factor=scale, mode="bicubic").transpose(0, 1).clamp(0, 1)


def _paper(like: Tensor, side: int, pixels: int) -> Tensor:
    """Paper as large as another picture, but for one side."""
    shape = list(like.shape)
    shape[side] = pixels
    return (torch.tensor(_PAPER) / 255).view(3, 1, 1, 1).expand(shape)


def _joined(parts: Sequence[Tensor], side: int) -> Tensor:
    """Parts along a side, with a gap between two."""
    gap = _paper(parts[0], side, _GAP)
    return torch.cat(list(chain(*((part, gap) for part in parts[:-1]), parts[-1:])), side)


def _labels(texts: Sequence[str], width: int) -> list[Tensor]:
    """The head of each clip, all of one height: (3, 1, height, width), alike in every frame."""
    if not any(texts):
        return [torch.zeros(3, 1, 0, width) for _ in texts]
    size = min(max(12, width // 22), 40)
    font = _font(size, "".join(texts))
    lines = [_wrapped(text, width - 8, font) for text in texts]
    most = max(map(len, lines))
    return [_as_tensor(_bar(text + [""] * (most - len(text)), width, font)) for text in lines]


def _as_tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[:, None].float() / 255


def _bar(lines: Sequence[str], width: int, font: Font) -> Image.Image:
    size = int(font.size)  # type: ignore[union-attr]
    step = math.ceil(size * 1.3)
    bar = Image.new("RGB", (width, step * len(lines) + 2 * (size // 3) + 1), _PAPER)
    draw = ImageDraw.Draw(bar)
    for n, line in enumerate(lines):
        draw.text((4, size // 3 + n * step), line, _INK, font=font)
    return bar


def _wrapped(text: str, width: int, font: Font) -> list[str]:
    """A label's lines; a word that is wider than the clip is broken."""
    lines, line = [], ""
    for word in _words(text):
        if line and font.getlength(line + word.rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        while font.getlength((line + word).rstrip()) > width and len(word) > 1:
            fits = next((n for n in range(len(word) - 1, 1, -1) if font.getlength(word[:n]) <= width), 1)
            lines.append(word[:fits])
            word = word[fits:]
        line += word
    return [*lines, line.rstrip()]


def _words(text: str) -> Iterable[str]:
    """With the space behind each."""
    return (f"{word} " for word in text.split())


@cache
def _installed(size: int) -> tuple[Font, ...]:
    found: list[Font] = [ImageFont.load_default(size)]
    for name in _FONTS:
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:
            continue
    return tuple(found)


def _font(size: int, text: str) -> Font:
    """The first font that has all letters.

    Raises:
        ValueError: if none has.
    """
    letters = set(text) - set(" \n")
    missing = [{letter for letter in letters if not _has(font, letter)} for font in _installed(size)]
    for font, lacks in zip(_installed(size), missing, strict=True):
        if not lacks:
            return font
    lacks = min(missing, key=len)
    raise ValueError(
        f"No font of this machine has {' '.join(sorted(lacks)[:10])}. Write the labels in other letters, or install a "
        "font that has them, such as Noto Sans CJK."
    )


def _has(font: Font, letter: str) -> bool:
    """A letter that a font lacks is drawn as the box that stands for any such letter."""
    return bytes(font.getmask(letter)) != bytes(font.getmask("\U0010fffd"))

"""Pictures of sinks: the strongest key of every head, the mass of a head's keys over the video, and over the steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.colors import LogNorm
from PIL import Image, ImageDraw
from torch import Tensor

from ..reporting.figures import INK, MAX_LABELS, figure, render
from .describe import called
from .detect import Findings, Sink
from .record import SinkRecord

#: Perceptually uniform and safe for every kind of colour vision; dark is little.
COLORS = "cividis"
_SINK = "#ff5c39"


def heads_picture(findings: Findings) -> Image.Image:
    """The strongest key of every head, as a ratio to uniform; heads with a sink are framed."""
    layers, heads = findings.layers, findings.heads
    drawn = figure(max(520, 220 + 34 * len(heads)), max(380, 130 + 22 * len(layers)), layout="constrained")
    axes = drawn.subplots()
    norm: Any = LogNorm(1, max(findings.ratio * 2, float(findings.peak.max())))
    shown = axes.imshow(np.clip(findings.peak, 1, None), cmap=COLORS, norm=norm, aspect="auto")
    _scale(drawn, shown, axes, findings.ratio)
    for layer, head in findings.sink_heads():
        at = heads.index(head) - 0.5, layers.index(layer) - 0.5
        axes.add_patch(_frame(at))
    if findings.peak.size <= MAX_LABELS:
        for (y, x), value in np.ndenumerate(findings.peak):
            color = "black" if norm(max(value, 1)) > 0.55 else "white"
            axes.text(x, y, f"{value:.1f}" if value < 10 else f"{value:.0f}", ha="center", va="center", color=color)
    axes.set_xticks(range(len(heads)), [str(head) for head in heads])
    axes.set_yticks(range(len(layers)), [str(layer) for layer in layers])
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
    axes.set_title(f"The strongest key of each head (framed: {called(findings)})", loc="left")
    return render(drawn)


def _frame(at: tuple[float, float]) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(at, 1, 1, fill=False, edgecolor=_SINK, linewidth=2.5)


def _scale(drawn: Any, shown: Any, axes: Any, limit: float) -> None:
    """A colour scale with plain numbers, and a mark from where on a key may be a sink."""
    marks = [mantissa * 10**power for power in range(6) for mantissa in (1, 2, 5)]
    scale = drawn.colorbar(shown, ax=axes, pad=0.02, ticks=marks, format="%d")
    scale.minorticks_off()
    scale.set_label("times uniform")
    scale.ax.axhline(limit, color=_SINK, linewidth=2.5)


def steps_picture(record: SinkRecord, findings: Findings) -> Image.Image:
    """The strongest key of each layer (its strongest head) over the steps, a line a branch's mean."""
    steps = [record.run.step_of(evaluation.sigma) for evaluation in record.evaluations]
    table = np.zeros((len(record.layers), len(steps)))
    for column, evaluation in enumerate(record.evaluations):
        for row, layer in enumerate(record.layers):
            peaks = [
                float(call.mass[:, 0].max())
                for key, call in record.calls.items()
                if key.layer == layer and key.evaluation == evaluation
            ]
            table[row, column] = np.mean(peaks) * record.run.grid.tokens if peaks else np.nan
    drawn = figure(max(520, 240 + 24 * len(steps)), max(360, 130 + 20 * len(record.layers)), layout="constrained")
    axes = drawn.subplots()
    norm: Any = LogNorm(1, max(findings.ratio * 2, float(np.nanmax(table))))
    shown = axes.imshow(np.clip(table, 1, None), cmap=COLORS, norm=norm, aspect="auto")
    _scale(drawn, shown, axes, findings.ratio)
    every = max(1, len(steps) // 10)
    axes.set_xticks(range(0, len(steps), every), [str(step) for step in steps[::every]])
    axes.set_yticks(range(len(record.layers)), [str(layer) for layer in record.layers])
    axes.set_xlabel("step")
    axes.set_ylabel("layer")
    axes.set_title("Mass of the strongest key over the steps", loc="left")
    return render(drawn)


def over_frames(
    ratios: Tensor, findings: Findings, sinks: Sequence[Sink], video: Tensor | None = None, edge: int = 256
) -> Image.Image:
    """The mass of every key of a head where it lies, a picture for each latent frame, its sinks ringed.

    Args:
        ratios: float32 (tokens,), to uniform.
        sinks: those of the head.
        video: frames to draw over, float in [0, 1], (frames, height, width, 3); a latent frame is shown over the first
            of the frames that it stands for.
        edge: px of a frame's longer side, about.
    """
    grid = findings.grid
    maps = ratios[grid.prefix : grid.tokens - grid.suffix].view(grid.frames, grid.height, grid.width)
    scale = max(1, edge // max(grid.height, grid.width))
    size = (grid.width * scale, grid.height * scale)
    norm = LogNorm(0.25, max(findings.ratio * 2, float(ratios.max())), clip=True)
    columns = max(1, min(grid.frames, 1600 // (size[0] + 6)))
    rows = -(-grid.frames // columns)
    below = rows * (size[1] + 26)
    sheet = Image.new("RGB", (columns * (size[0] + 6) - 6, below + 40), "white")
    draw = ImageDraw.Draw(sheet)
    for frame in range(grid.frames):
        left, top = (frame % columns) * (size[0] + 6), (frame // columns) * (size[1] + 26)
        draw.text((left + 2, top + 5), f"frame {frame}", INK, font_size=14)
        colored = colormaps[COLORS](norm(maps[frame].numpy().clip(0.25)))[..., :3]
        heat = Image.fromarray((colored * 255).astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
        if video is not None:
            heat = Image.blend(_frame_below(video, frame, grid.frames, size), heat, 0.6)
        sheet.paste(heat, (left, top + 24))
        for place in {sink.place for sink in sinks if sink.place and sink.place[0] == frame}:
            y, x = top + 24 + place[1] * scale, left + place[2] * scale
            draw.rectangle((x - 2, y - 2, x + scale + 1, y + scale + 1), outline=_SINK, width=2)
    _legend(sheet, below + 8, norm, ringed=bool(sinks))
    return sheet


def _legend(sheet: Image.Image, top: int, norm: Any, ringed: bool) -> None:
    """What the colours mean, in the sheet's lower left corner."""
    draw, width = ImageDraw.Draw(sheet), max(120, min(360, sheet.width - 240))
    colors = (colormaps[COLORS](np.linspace(0, 1, width))[None, :, :3] * 255).astype(np.uint8)
    sheet.paste(Image.fromarray(colors).resize((width, 12), Image.Resampling.NEAREST), (4, top))
    for value in (0.25 * 4**n for n in range(12)):
        if norm.vmin <= value <= norm.vmax:
            x = 4 + float(norm(value)) * (width - 1)
            draw.line((x, top + 11, x, top + 14), INK)
            draw.text((max(x, 14), top + 15), f"{value:g}", INK, font_size=12, anchor="mt")
    draw.text((width + 14, top + 6), "times uniform", INK, font_size=14, anchor="lm")
    if ringed:
        draw.rectangle((width + 118, top, width + 130, top + 12), outline=_SINK, width=2)
        draw.text((width + 138, top + 6), "sink", INK, font_size=14, anchor="lm")


def _frame_below(video: Tensor, frame: int, frames: int, size: tuple[int, int]) -> Image.Image:
    """The picture of a latent frame, grey so that colours over it keep their meaning."""
    at = 0 if frame == 0 else min(len(video) - 1, 1 + (frame - 1) * max(1, (len(video) - 1) // max(1, frames - 1)))
    grey = video[at].float().cpu().movedim(-1, 0)[None].mean(1, keepdim=True)
    fitted = F.interpolate(grey, size=(size[1], size[0]), mode="area")[0, 0].clamp(0, 1)
    return Image.fromarray((fitted * 255).to(torch.uint8).numpy()).convert("RGB")

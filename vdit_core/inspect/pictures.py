"""Pictures of attention maps: whole or enlarged, frame by frame, how mass falls with distance, how alike maps are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ..call import TokenGrid

#: Perceptually uniform; dark is little.
COLORS = "magma"
#: Okabe and Ito's colours: apart for every kind of colour vision.
_PAIRS = ("#0072B2", "#E69F00", "#000000", "#009E73", "#CC79A7")
_DPI = 100
_STYLE: Any = {"font.size": 11, "axes.titlesize": 12, "axes.spines.top": False, "axes.spines.right": False}


def render(figure: Figure) -> Image.Image:
    """The figure as an RGB picture, one pixel per dot."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def figure(width: float, height: float) -> Figure:
    """A figure of so many pixels."""
    with matplotlib.rc_context(_STYLE):
        return Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, layout="constrained")


def map_picture(
    weights: Tensor,
    grid: TokenGrid,
    title: str,
    rows: tuple[int, int] | None = None,
    columns: tuple[int, int] | None = None,
    log: bool = True,
    limits: tuple[float, float] | None = None,
) -> Image.Image:
    """A map or a part of one, about 900 px wide, with frame lines and axes labelled by frame.

    Args:
        weights: mean weights of blocks, (P, P').
        rows, columns: which tokens it shows, (first, behind the last); None for all.
        log: colours by the logarithm of the weight; most of a map is faint.
        limits: weights of the darkest and brightest colour, for pictures that are to be compared.
    """
    rows, columns = rows or (0, grid.tokens), columns or (0, grid.tokens)
    picture = figure(900, 860)
    with matplotlib.rc_context(_STYLE):
        axes = picture.subplots()
        image = axes.imshow(
            _positive(weights, log),
            extent=(columns[0], columns[1], rows[1], rows[0]),
            cmap=COLORS,
            norm=_norm(weights, log, limits),
            interpolation="nearest",
            aspect="auto",
        )
        _frame_axes(axes, grid, rows, columns)
        axes.set(title=title, xlabel="key (frame)", ylabel="query (frame)")
        picture.colorbar(image, ax=axes, label="attention weight" + (", log scale" if log else ""), shrink=0.85)
    return render(picture)


def frames_picture(frames: Tensor, names: Sequence[str], title: str) -> Image.Image:
    """Frame by frame: the share of the mass that queries of one frame give to keys of another.

    frames: (maps, F, F), one small picture each, under its name.
    """
    across = min(len(frames), 4)
    down = -(-len(frames) // across)
    picture = figure(max(480, 280 * across), 60 + 290 * down)
    with matplotlib.rc_context(_STYLE):
        every = picture.subplots(down, across, squeeze=False)
        image: Any = None
        for axes in every.flat:
            axes.set_axis_off()
        for axes, values, name in zip(every.flat, frames, names, strict=False):
            axes.set_axis_on()
            image = axes.imshow(values.numpy(), cmap=COLORS, norm=Normalize(0, float(frames.max())))
            axes.set_title(name)
            step = max(1, -(-len(values) // 8))
            axes.set_xticks(range(0, len(values), step))
            axes.set_yticks(range(0, len(values), step))
            if len(values) <= 6:
                _write_values(axes, values, float(frames.max()))
        picture.colorbar(image, ax=every, label="share of the query's attention", shrink=0.85)
        picture.suptitle(f"{title}\nrows: frame of the query, columns: frame of the key", fontsize=12)
    return render(picture)


def decay_picture(curves: dict[str, tuple[Tensor, Tensor]], title: str) -> Image.Image:
    """How attention falls with distance.

    curves: a line for each name: what a pair of tokens has at each frame distance, and at each distance within a frame,
        as a ratio to a map without preference: 1-D tensors.
    """
    picture = figure(1120, 520)
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.92, len(curves)))
    with matplotlib.rc_context(_STYLE):
        left, right = picture.subplots(1, 2)
        for color, (name, (temporal, spatial)) in zip(colors, curves.items(), strict=True):
            left.plot(temporal.numpy(), color=color, label=name, marker="o", markersize=3)
            right.plot(spatial.numpy(), color=color, marker="o", markersize=3)
        for axes, words in ((left, "frames apart"), (right, "tokens apart in the frame, whatever the frame")):
            axes.axhline(1, color="0.5", linewidth=1, linestyle="--")
            axes.set(yscale="log", xlabel=words)
            axes.xaxis.get_major_locator().set_params(integer=True)
        left.set_ylabel("weight, relative to uniform (dashed)")
        picture.legend(
            *left.get_legend_handles_labels(), loc="outside right upper", frameon=False, ncols=-(-len(curves) // 16)
        )
        picture.suptitle(title, fontsize=12)
    return render(picture)


def likeness_picture(panels: dict[str, dict[str, Tensor]], layers: Sequence[int], title: str) -> Image.Image:
    """How alike maps are, layer by layer: a panel for each measure, in it a line for each pair of maps.

    panels: {measure: {pair: (layers, heads)}}; lines are means over heads, bands reach from the lowest to the highest.
    """
    picture = figure(400 * len(panels), 460)
    with matplotlib.rc_context(_STYLE):
        every = picture.subplots(1, len(panels), squeeze=False)[0]
        for axes, (measure, pairs) in zip(every, panels.items(), strict=True):
            for (name, values), color, marker in zip(pairs.items(), _PAIRS, "os^Dv", strict=False):
                axes.plot(layers, values.mean(1).numpy(), color=color, label=name, marker=marker, markersize=5)
                low, high = values.amin(1).numpy(), values.amax(1).numpy()
                axes.fill_between(layers, low, high, color=color, alpha=0.15, linewidth=0)
            axes.set(title=measure, xlabel="layer", ylim=(min(0.0, *axes.get_ylim()), 1.02))
            axes.xaxis.get_major_locator().set_params(integer=True)
        picture.legend(*every[0].get_legend_handles_labels(), loc="outside lower center", frameon=False, ncols=4)
        picture.suptitle(title, fontsize=12)
    return render(picture)


def _write_values(axes: Axes, values: Tensor, brightest: float) -> None:
    for i, row in enumerate(values.tolist()):
        for j, value in enumerate(row):
            ink = "black" if value > 0.6 * brightest else "white"
            axes.text(j, i, f"{value:.0%}", ha="center", va="center", color=ink, fontsize=9)


def _positive(weights: Tensor, log: bool) -> np.ndarray:
    values = weights.double().numpy()
    return np.maximum(values, np.finfo(np.float32).tiny) if log else values


def _norm(weights: Tensor, log: bool, limits: tuple[float, float] | None) -> Normalize:
    """The brightest thousandth may saturate: single weights would leave the rest dark."""
    if limits is None:
        high = max(float(np.quantile(weights.numpy(), 0.999)), float(weights.mean()), 1e-30)
        limits = (max(float(np.quantile(weights.numpy(), 0.01)), high * 1e-5) if log else 0.0, high)
    return LogNorm(*limits) if log and limits[0] < limits[1] else Normalize(*limits)


def _frame_axes(axes: Axes, grid: TokenGrid, rows: tuple[int, int], columns: tuple[int, int]) -> None:
    size = grid.height * grid.width
    edges = [grid.prefix + n * size for n in range(grid.frames + 1)]
    for axis, (first, end), line in ((axes.xaxis, columns, axes.axvline), (axes.yaxis, rows, axes.axhline)):
        inside = [edge for edge in edges if first < edge < end]
        for edge in inside:
            line(edge, color="white", linewidth=0.6, alpha=0.5)
        seen = [n for n in range(grid.frames) if edges[n + 1] > first and edges[n] < end]
        seen = seen[:: max(1, -(-len(seen) // 24))]
        axis.set_ticks([(max(edges[n], first) + min(edges[n + 1], end)) / 2 for n in seen], [str(n) for n in seen])
        axis.set_tick_params(length=0)

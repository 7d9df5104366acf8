"""Pictures of attention maps: whole or enlarged, frame by frame, how mass falls with distance, how alike maps are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image
from torch import Tensor

from ..call import TokenGrid
from ..reporting.figures import PALETTE, figure, render, style

#: Perceptually uniform; dark is little. And one that parts what is above 1 from what is below.
COLORS, AROUND_ONE = "magma", "RdBu_r"
_MARKS = "os^Dv<>P"
#: Of a map: px at least of its longer and shorter side, and around it for title, axes and scale (left, top, right,
#: bottom).
EDGE, _MIN_EDGE, _MARGINS = 640, 240, (64, 48, 156, 60)
_FRAME_LINE: Any = {
    "color": "white", "linewidth": 0.8, "path_effects": [withStroke(linewidth=2.2, foreground="black", alpha=0.55)],
}  # fmt: skip
#: The darkest colours of a ratio, and the marks of its scale.
_FAR_FROM_ONE, _SCALE = 50, (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
#: More layers than this are rows of a heat map: so many lines could not be told apart.
_MAX_LINES = len(PALETTE) + 1


def map_picture(
    weights: Tensor,
    grid: TokenGrid,
    title: str,
    rows: tuple[int, int] | None = None,
    columns: tuple[int, int] | None = None,
    log: bool = True,
    limits: tuple[float, float] | None = None,
    edge: int = EDGE,
) -> Image.Image:
    """A map or a part of one, at least `edge` px, with frame lines and axes labelled by frame; a weight is a whole
    number of pixels wide and high.

    Args:
        weights: mean weights of blocks, (P, P').
        rows, columns: which tokens it shows, (first, behind the last); None for all.
        log: colours by the logarithm of the weight; most of a map is faint.
        limits: weights of the darkest and brightest colour, for pictures that are to be compared.
    """
    rows, columns = rows or (0, grid.tokens), columns or (0, grid.tokens)
    width, height = _map_size(weights.shape, rows[1] - rows[0], columns[1] - columns[0], edge)
    left, top, right, bottom = _MARGINS
    across, down = left + width + right, top + height + bottom
    across, down = across + across % 2, down + down % 2  # videos want even sizes
    picture = figure(across, down, layout=None)
    with style():
        lowest = down - top - height
        axes = picture.add_axes((left / across, lowest / down, width / across, height / down))
        image = axes.imshow(
            _positive(weights, log),
            extent=(columns[0], columns[1], rows[1], rows[0]),
            cmap=COLORS,
            norm=_norm(weights, log, limits),
            interpolation="nearest",
            aspect="auto",
        )
        _frame_axes(axes, grid, rows, columns)
        axes.set(xlabel="key (frame)", ylabel="query (frame)")
        picture.text(0.5, 1 - 28 / down, title, ha="center", fontsize=12)
        scale = picture.add_axes(((left + width + 24) / across, lowest / down, 22 / across, height / down))
        picture.colorbar(image, cax=scale, label="attention weight" + (", log scale" if log else ""))
    return render(picture)


def _map_size(cells: Sequence[int], rows: int, columns: int, edge: int) -> tuple[int, int]:
    """Width and height in px of a map of (P, P') cells that shows so many tokens: the longer side by whole cells, the
    other as near to the same scale as whole cells allow."""
    longer = cells[1] if columns >= rows else cells[0]
    px = longer * math.ceil(edge / longer) / max(rows, columns)  # of a token
    height, width = (
        count * max(1, round(max(px * tokens, _MIN_EDGE) / count))
        for count, tokens in zip(cells, (rows, columns), strict=True)
    )
    return width, height


def frames_picture(frames: Tensor, names: Sequence[str], title: str) -> Image.Image:
    """Frame by frame: the share of the mass that queries of one frame give to keys of another.

    frames: (maps, F, F), one small picture each, under its name.
    """
    across = min(len(frames), 4 if len(frames) <= 12 else 6)
    down, edge = -(-len(frames) // across), 270 if len(frames) <= 12 else 200
    picture = figure(max(560, edge * across), 110 + (edge + 20) * down)
    most = float(frames.nan_to_num().max())
    with style():
        every = picture.subplots(down, across, squeeze=False)
        picture.set_layout_engine("constrained", hspace=0.06)
        image: Any = None
        for axes in every.flat:
            axes.set_axis_off()
        for axes, values, name in zip(every.flat, frames, names, strict=False):
            axes.set_axis_on()
            image = axes.imshow(values.numpy(), cmap=COLORS, norm=Normalize(0, most))
            axes.set_title(name)
            step = max(1, -(-len(values) // 8))
            axes.set_xticks(range(0, len(values), step))
            axes.set_yticks(range(0, len(values), step))
            if len(values) <= 6:
                _write_values(axes, values, most)
        picture.colorbar(
            image, ax=every, label="share of the query's attention", location="bottom", shrink=0.6, aspect=40
        )
        picture.suptitle(f"{title}\nrows: frame of the query, columns: frame of the key", fontsize=12)
    return render(picture)


def decay_picture(curves: Mapping[int, tuple[Tensor, Tensor]], title: str) -> Image.Image:
    """How attention falls with distance: a line a layer, or of many layers a row of a heat map.

    curves: for each layer what a pair of tokens has at each frame distance, and at each distance within a frame, as a
        ratio to a map without preference: 1-D tensors.
    """
    axis = ("frames apart", "tokens apart in the frame, whatever the frame")
    many = len(curves) > _MAX_LINES
    picture = figure(960, 140 + 22 * len(curves) if many else 480)
    with style():
        panels = picture.subplots(1, 2)
        (_decay_rows if many else _decay_lines)(picture, panels, curves)
        for axes, words in zip(panels, axis, strict=True):
            axes.set_xlabel(words)
            axes.xaxis.get_major_locator().set_params(integer=True)
        picture.suptitle(title, fontsize=12)
    return render(picture)


def _decay_lines(picture: Figure, panels: Sequence[Axes], curves: Mapping[int, tuple[Tensor, Tensor]]) -> None:
    for n, (layer, pair) in enumerate(curves.items()):
        for axes, values in zip(panels, pair, strict=True):
            style: dict[str, Any] = {"color": PALETTE[n % len(PALETTE)], "marker": _MARKS[n % len(_MARKS)]}
            if n >= len(PALETTE):
                style["linestyle"] = "--"
            axes.plot(values.numpy(), label=f"layer {layer}", markersize=5, **style)
    for axes in panels:
        axes.axhline(1, color="0.5", linewidth=1, linestyle=":")
        axes.set(yscale="log")
    panels[0].set_ylabel("weight, relative to uniform (dotted)")
    picture.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)


def _decay_rows(picture: Figure, panels: Sequence[Axes], curves: Mapping[int, tuple[Tensor, Tensor]]) -> None:
    layers = list(curves)
    every = -(-len(layers) // 32)
    image: Any = None
    for axes, values in zip(panels, zip(*curves.values(), strict=True), strict=True):
        rows = np.stack([one.numpy() for one in values]).clip(1 / _FAR_FROM_ONE, _FAR_FROM_ONE)
        norm = LogNorm(1 / _FAR_FROM_ONE, _FAR_FROM_ONE)
        image = axes.imshow(rows, cmap=AROUND_ONE, norm=norm, aspect="auto", interpolation="nearest")
        axes.set_yticks(range(0, len(layers), every), [str(layer) for layer in layers[::every]])
    panels[0].set_ylabel("layer")
    scale = picture.colorbar(image, ax=panels, label="weight, relative to uniform", extend="both", ticks=_SCALE)
    scale.ax.set_yticklabels([f"{value:g}" for value in _SCALE])
    scale.minorticks_off()


def likeness_picture(panels: dict[str, dict[str, Tensor]], layers: Sequence[int], title: str) -> Image.Image:
    """How alike maps are, layer by layer: a panel for each measure, in it a line for each pair of maps.

    panels: {measure: {pair: (layers, heads)}}; lines are means over heads, bands reach from the lowest to the highest.
    """
    picture = figure(320 * len(panels), 460)
    with style():
        every = picture.subplots(1, len(panels), squeeze=False)[0]
        for axes, (measure, pairs) in zip(every, panels.items(), strict=True):
            for (name, values), color, marker in zip(pairs.items(), PALETTE, _MARKS, strict=False):
                axes.plot(layers, values.mean(1).numpy(), color=color, label=name, marker=marker, markersize=5)
                low, high = values.amin(1).numpy(), values.amax(1).numpy()
                axes.fill_between(layers, low, high, color=color, alpha=0.15, linewidth=0)
            axes.set_title(measure, fontsize=11)
            axes.set(xlabel="layer", ylim=(min(0.0, *axes.get_ylim()), 1.02))
            axes.xaxis.get_major_locator().set_params(integer=True)
        picture.legend(*every[0].get_legend_handles_labels(), loc="outside lower center", frameon=False, ncols=2)
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
        for edge in edges:
            if first < edge < end:
                line(edge, **_FRAME_LINE)
        seen = [n for n in range(grid.frames) if edges[n + 1] > first and edges[n] < end]
        seen = seen[:: max(1, -(-len(seen) // 24))]
        axis.set_ticks([(max(edges[n], first) + min(edges[n + 1], end)) / 2 for n in seen], [str(n) for n in seen])
        axis.set_tick_params(length=0)

"""What was tried on heads by their role: a table, a figure, a contact sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor

from ..reporting.figures import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, VERMILION, figure, render, style
from ..reporting.labelled import contact_sheet
from ..reporting.tables import markdown
from .pairs import PAIRS
from .roles import ALL, CAMERA, PLAIN, RANDOM, Row, Trial, differences, rows

#: What a preset of the camera must reach: at most this part of the plain target's distance to the source's pan, and
#: outlines at least this part of the plain target's.
PAN, DRAWN = 0.3, 0.8
_LOOKS = {
    PLAIN: (BLACK, "o"), ALL: (GREY, "s"), CAMERA: (VERMILION, "*"), "motion only": (GREEN, "^"),
    "layout only": (BLUE, "v"), "all but identity": (PINK, "D"), RANDOM: (ORANGE, "X"),
}  # fmt: skip


def as_text(found: Sequence[Trial]) -> str:
    """The table (Markdown), and below it the camera's heads beside random ones, paired over seeds."""
    heads = [
        "pair", "maps of the source in", "seeds", "pan, px", "pan, of the plain target's",
        "outlines, of the plain target's", "of clips of its colour", "object's x, px", "horizon, px", "object seen",
    ]  # fmt: skip
    lines = [markdown(heads, map(_cells, rows(found)))]
    for pair, of in differences(found).items():
        (pan, pan_error), (drawn, drawn_error) = of["pan"], of["drawn"]
        lines.append(
            f"\n{pair}, {RANDOM} less {CAMERA}, paired over seeds: pan {pan:+.1f} ± {pan_error:.1f} px, outlines "
            f"{drawn:+.0%} ± {drawn_error:.0%} of the plain target's."
        )
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    def part(value: tuple[float, float]) -> str:
        if row.variant == PLAIN:
            return "100%"
        if math.isnan(value[0]):
            return "none"
        return f"{value[0]:.0%}" + ("" if math.isinf(value[1]) else f" ± {value[1]:.0%}")

    pan = f"{row.pan:.1f}" + ("" if math.isinf(row.error) else f" ± {row.error:.1f}")
    parts = (part(value) for value in (row.pan_part, row.drawn, row.alike))
    return [row.pair, row.variant, str(row.seeds), pan, *parts, f"{row.x:.1f}", f"{row.horizon:.1f}", f"{row.seen:.0%}"]


def tried_picture(found: Sequence[Trial]) -> Image.Image:
    """How near each variant's pan is to the source's, and how clearly its object is drawn: a panel for each pair."""
    table = rows(found)
    pairs = list(dict.fromkeys(row.pair for row in table))
    picture = figure(460 * len(pairs) + 40, 460)
    with style():
        panels = picture.subplots(1, len(pairs), squeeze=False, sharex=True, sharey=True)[0]
        for axes, pair in zip(panels, pairs, strict=True):
            _panel(axes, [row for row in table if row.pair == pair])
            axes.set_title(f"{PAIRS[pair].source.object} → {PAIRS[pair].target.object}")
            axes.set_xlabel("distance to the source's pan, of the plain target's")
        panels[0].set_ylabel("outlines at the object, of the plain target's")
        handles, labels = panels[0].get_legend_handles_labels()
        picture.legend(handles, labels, loc="outside lower center", frameon=False, ncols=4)
        seeds = max(row.seeds for row in table)
        picture.suptitle(f"Whose maps are the source's · {seeds} seeds, ± a standard error", fontsize=12)
    return render(picture)


def _panel(axes: Axes, table: Sequence[Row]) -> None:
    for row in table:
        color, marker = _LOOKS[row.variant]
        (pan, pan_error), (drawn, drawn_error) = row.pan_part, row.drawn
        if row.variant == PLAIN:
            pan_error = drawn_error = 0.0
        size = 14 if marker == "*" else 8
        axes.errorbar(pan, drawn, drawn_error, pan_error, color=color, marker=marker, markersize=size, linestyle="",
                      capsize=3, label=row.variant)  # fmt: skip
    axes.fill_between([0, PAN], DRAWN, 2, color=VERMILION, alpha=0.08, linewidth=0)
    axes.set(xlim=(0, 1.15), ylim=(0, 1.25))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def beside(left: Image.Image, right: Image.Image) -> Image.Image:
    """Two pictures next to each other, on white."""
    both = Image.new("RGB", (left.width + right.width, max(left.height, right.height)), "white")
    both.paste(left, (0, (both.height - left.height) // 2))
    both.paste(right, (left.width, (both.height - right.height) // 2))
    return both


def sheet(found: Sequence[Trial], clips: Tensor, columns: int = 5) -> Image.Image:
    """Frames of some trials' clips, a row each, under the source's; clips: as `roles.trials` returns them."""
    first = PAIRS[found[0].pair]
    labelled: dict[str, Any] = {f"source: {first.source} (seed {found[0].seed})": clips[0]}
    for trial, clip in zip(found, clips[1:], strict=True):
        target = PAIRS[trial.pair].target
        mask = f": {trial.mask}" if trial.variant in (CAMERA, RANDOM) else ""
        labelled[f"{target.object}, {trial.variant}{mask}"] = clip
    return contact_sheet(labelled, columns)

"""Pictures of a sweep: a bar chart of the scores, and a contact sheet of the videos."""

from __future__ import annotations

from matplotlib.patches import Patch
from PIL import Image
from torch import Tensor

from ..reporting.figures import INK, PALE, figure, render, style
from ..reporting.labelled import contact_sheet
from .plan import ROWS
from .scores import Result

_PANELS = {"edges": "Where things are (edge correlation)", "motion": "What moves (motion agreement)"}
_STRUCTURE = "#d9713c"
_WIDEST = 4000  # px of a chart: a model may have hundreds of heads


def bars(result: Result, title: str | None = None, size: tuple[int, int] | None = None) -> Image.Image:
    """Likeness to the source, a bar a row and a panel a score; the plain target is a line, rows that stand out have
    their own colour.

    title: by default the two prompts. size: px, by default as wide as the rows need.
    """
    count, chosen, heads = len(result.rows), result.suggested_rows(), result.sweep.of_heads
    with style(**{"font.size": 9}):  # 12.5 px
        width, height = size or (min(max(760, 140 + 32 * count), _WIDEST), 620)
        drawn = figure(width, height)
        title = title or f"{result.sweep.source}  →  {result.sweep.target}"
        drawn.suptitle(title, fontsize=10, color=INK)
        panels = drawn.subplots(len(_PANELS), 1, sharex=True)
        for axes, (name, title) in zip(panels, _PANELS.items(), strict=True):
            heights = [row.to_source[name] for row in result.rows]
            axes.bar(range(count), heights, 0.72, color=[_STRUCTURE if i in chosen else PALE for i in range(count)])
            line = axes.axhline(result.plain[name], color=INK, linewidth=1.2, linestyle="--", label="plain target")
            axes.set_title(title, fontsize=10, loc="left")
            axes.set_ylabel("likeness to source")
            axes.margins(x=0.01, y=0.12)
        every = -(-28 * count // width)  # numbers need room
        names = [_short(result.rows[i].label) if heads else str(i) for i in range(0, count, every)]
        panels[-1].set_xticks(range(0, count, every), names, rotation=90 if heads else 0)
        panels[-1].set_xlabel({
            "each": "the layer that takes the source's map",
            "first": "the source's maps from layer 0 to this layer",
            "last": "the source's maps from this layer to the last",
            "all but one": "the source's maps in all layers but this",
        }.get(result.sweep.mode, "the heads that take the source's maps"))  # fmt: skip
        kind = "head group" if heads else "layer"
        keys = [line, Patch(color=_STRUCTURE, label=f"structure {kind}"), Patch(color=PALE, label=f"other {kind}")]
        drawn.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False)
        return render(drawn)


def sheet(result: Result, clips: Tensor, columns: int = 6, names: tuple[str, str] | None = None) -> Image.Image:
    """The source, the plain target and every row under its label; clips as `scores.measure` takes them.

    names: of the first two, by default with their prompts.
    """
    labels = list(names or (video.label for video in result.sweep.videos()[:ROWS]))
    kind, chosen = "head group" if result.sweep.of_heads else "layer", result.suggested_rows()
    for i, row in enumerate(result.rows):  # + 0 turns -0.00 into 0.00
        structure = f", a structure {kind}" if i in chosen else ""
        labels.append(f"{row.label}: share {round(row.share, 2) + 0:.2f}{structure}")
    return contact_sheet(dict(zip(labels, clips, strict=True)), columns, scale=min(1.0, 160 / clips.shape[-1]))


def _short(label: str) -> str:
    return label if len(label) <= 16 else label[:15] + "…"

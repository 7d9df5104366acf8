"""Pictures of a search by goal: the trade by number of groups, what every mask has of the goal, and the videos."""

from __future__ import annotations

import math

from PIL import Image

from ..reporting.figures import INK, PALE, VERMILION, figure, render, style
from ..reporting.labelled import contact_sheet
from .found import Found
from .goal import Traded

_LEAST = -1.5  # a share further below 0 is drawn at the edge: nothing more is to be seen there


def chart(found: Found, title: str | None = None) -> Image.Image:
    """Left: the trade after each group of the path, and of all that was tried. Right: kept against free of all masks,
    the Pareto front and the path."""
    trials = [trial for trial in found.trials if math.isfinite(trial.has.trade)]
    with style(**{"font.size": 9}):
        drawn = figure(1000, 460)
        drawn.suptitle(title or f"{found.sweep.source}  →  {found.sweep.target}: {found.config.goal}", fontsize=10)
        left, right = drawn.subplots(1, 2)

        trades = [found.plain.trade, *(step.trial.has.trade for step in found.path)]
        left.scatter(
            [trial.round for trial in trials], [max(_LEAST, trial.has.trade) for trial in trials],
            s=14, color=PALE, label="tried",
        )  # fmt: skip
        left.plot(range(len(trades)), trades, color=VERMILION, marker="o", markersize=5, label="taken")
        left.axhline(found.plain.trade, color=INK, linewidth=1, linestyle="--", label="plain target")
        left.set_xticks(range(max([len(trades), *(trial.round + 1 for trial in trials)])))
        left.set_xlabel("head groups")
        left.set_ylabel(f"trade ({found.config.goal.weight:g} kept + {1 - found.config.goal.weight:g} free)")
        left.legend(frameon=False)

        right.scatter(*_points([trial.has for trial in trials]), s=14, color=PALE, label="tried")
        best = [trial.has for trial in found.front() if math.isfinite(trial.has.trade)]
        right.plot(*_points(best), color=INK, linewidth=1, label="Pareto front")
        way = [found.plain, *(step.trial.has for step in found.path)]
        right.plot(*_points(way), color=VERMILION, marker="o", markersize=5, label="taken")
        for n, (x, y) in enumerate(zip(*_points(way), strict=True)):
            right.annotate(str(n) if n else "plain target", (x, y), (4, 4), textcoords="offset points")
        right.scatter([1], [0], color=INK, marker="x", s=24)
        right.annotate("source", (1, 0), (-6, 6), textcoords="offset points", ha="right")
        right.set_xlabel(f"near the source: {', '.join(found.config.goal.keep)}")
        right.set_ylabel(f"near the plain target: {', '.join(found.config.goal.free)}")
        right.margins(0.08)
        right.legend(frameon=False)
        return render(drawn)


def sheet(found: Found, columns: int = 6) -> Image.Image:
    """The source, the plain target, and the target after each group of the path."""
    clips = [("source", ""), ("plain target", ""), *((f"+ {s.trial.label}", f"{s.gain:+.2f}") for s in found.path)]
    labels = [f"{n - 1}: {name} ({gain})" if gain else name for n, (name, gain) in enumerate(clips)]
    scale = min(1.0, 160 / found.clips.shape[-1])
    return contact_sheet(dict(zip(labels, found.clips, strict=True)), columns, scale=scale)


def _points(found: list[Traded]) -> tuple[list[float], list[float]]:
    return [max(_LEAST, has.kept) for has in found], [max(_LEAST, has.free) for has in found]

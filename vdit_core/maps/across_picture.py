"""The picture of two models' attention side by side."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from ..reporting.figures import BLUE, GREY, ORANGE, PALETTE, figure, render, style
from .across import MEASURES, ROLES, AcrossModels


def across_picture(found: AcrossModels, baseline: AcrossModels | None = None) -> Image.Image:
    """How attention falls with distance in both models, what their heads do, and how alike they are at each depth."""
    models = [("first", BLUE, found.first), ("second", ORANGE, found.second)]
    picture = figure(1100, 820)
    with style():
        (time, space), (roles, depth) = picture.subplots(2, 2)
        for name, color, one in models:
            _curve(time, one.time, name, color)
            _curve(space, one.space, name, color)
        for axes, words in ((time, "frames apart"), (space, "tokens apart in the frame, whatever the frame")):
            axes.axhline(1, color="0.5", linewidth=1, linestyle=":")
            axes.set(yscale="log", xlabel=words, title="Decay (mean and range of layers)")
        time.set_ylabel("weight, relative to uniform (dotted)")
        time.legend(frameon=False)
        for n, (name, color, one) in enumerate(models):
            roles.bar(
                [i + 0.4 * n - 0.2 for i in range(len(ROLES))], one.shares().numpy(), 0.38, color=color, label=name
            )
        roles.set_xticks(range(len(ROLES)), ROLES)
        roles.set(ylabel="share of heads", ylim=(0, 1), title="Roles of heads")
        for (name, values), color, marker in zip(found.measured.items(), PALETTE[2:], "os^D", strict=False):
            depth.plot(found.first.depth, values.numpy(), color=color, marker=marker, markersize=5, label=name)
            mark = None if baseline is None else baseline.means()[name]
            if mark is not None:
                depth.axhline(mark, color=color, linewidth=1, linestyle=":")
        depth.axhline(1, color=GREY, linewidth=0.8)
        dotted = "" if baseline is None else "; dotted: two recordings of the first"
        depth.set(xlabel="relative depth", ylim=(min(0.0, *depth.get_ylim()), 1.05), title=f"How alike{dotted}")
        depth.legend(frameon=False, ncols=len(MEASURES))
        picture.suptitle(f"first: {found.first.name}\nsecond: {found.second.name}", fontsize=11)
    return render(picture)


def _curve(axes: Axes, curves: Tensor, name: str, color: str) -> None:
    apart = range(curves.shape[1])
    axes.plot(apart, curves.mean(0).numpy(), color=color, label=name)
    axes.fill_between(apart, curves.amin(0).numpy(), curves.amax(0).numpy(), color=color, alpha=0.15, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))

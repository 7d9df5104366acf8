"""Heads and their roles as a picture: layers down, heads across."""

from __future__ import annotations

from collections.abc import Collection

from matplotlib.colors import to_rgb
from matplotlib.patches import Patch, Rectangle
from PIL import Image

from ..reporting.figures import BLUE, GREEN, GREY, INK, MAX_LABELS, ORANGE, PINK, SKY, VERMILION, figure, render, style
from .classify import FIRST, LAYOUT, MEANING, MIXED, MOTION, ROLES, SINK, TEXT, TRACKER, Roles

COLORS = {
    MOTION: VERMILION, TRACKER: GREEN, LAYOUT: BLUE, FIRST: ORANGE, SINK: PINK, TEXT: SKY, MIXED: GREY,
}  # fmt: skip
#: Of a head: px across and down, with and without its words.
_LABELLED, _BARE = (132, 46), (26, 26)


def roles_picture(found: Roles, title: str, chosen: Collection[tuple[int, int]] = ()) -> Image.Image:
    """A cell for each head in its role's colour, the stronger the higher its score; of few heads with the role's name,
    the score, and the speed of attention along time. chosen: heads that are framed."""
    table = found.table
    words = len(found.roles) <= MAX_LABELS
    across, down = _LABELLED if words else _BARE
    there = [role for role in ROLES if role in found.roles.values()]
    picture = figure(max(560, 110 + across * len(table.heads)), 130 + 24 * len(there) + down * len(table.layers))
    with style():
        axes = picture.subplots()
        axes.set(xlim=(-0.5, len(table.heads) - 0.5), ylim=(len(table.layers) - 0.5, -0.5))
        for head, role in found.roles.items():
            i, j = found.place(head)
            score = min(1.0, max(0.0, found.score(head)))
            color = _faded(COLORS[role], 0.25 + 0.75 * score)
            axes.add_patch(Rectangle((j - 0.48, i - 0.46), 0.96, 0.92, color=color, linewidth=0))
            if head in chosen:
                width = 2.4 if words else 1.6
                axes.add_patch(Rectangle((j - 0.48, i - 0.46), 0.96, 0.92, fill=False, edgecolor=INK, linewidth=width))
            if words:
                ink = "black" if _light(color) else "white"
                moves = f"\n{found.speed(head):.2f} tokens/frame" if role in (MOTION, TRACKER) else ""
                label = f"{role} {found.score(head):.2f}{moves}"
                axes.text(j, i, label, color=ink, ha="center", va="center", fontsize=9)
        every = max(1, -(-len(table.layers) // 40))
        axes.set_xticks(range(len(table.heads)), [str(head) for head in table.heads])
        axes.set_yticks(range(0, len(table.layers), every), [str(layer) for layer in table.layers[::every]])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set(xlabel="head", ylabel="layer")
        legend = [Patch(color=COLORS[role], label=f"{role}: {MEANING[role]}") for role in there]
        picture.legend(handles=legend, loc="outside lower left", frameon=False, fontsize=10)
        picture.suptitle(title, fontsize=12)
    return render(picture)


def _faded(color: str, strength: float) -> tuple[float, float, float]:
    r, g, b = to_rgb(color)
    return 1 - (1 - r) * strength, 1 - (1 - g) * strength, 1 - (1 - b) * strength


def _light(color: tuple[float, float, float]) -> bool:
    return 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 0.55

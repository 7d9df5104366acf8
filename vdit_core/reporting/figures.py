"""How figures look: one style, colours that every kind of colour vision tells apart, one way to a picture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

#: Okabe and Ito's colours.
BLUE, ORANGE, BLACK, GREEN, PINK, SKY, VERMILION, GREY = PALETTE = (
    "#0072B2", "#E69F00", "#000000", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C8C8C",
)  # fmt: skip
#: Of lines and text; of what is not pointed out.
INK, PALE = "#2a2a2e", "#a9bccd"
#: A table of more numbers is a heat map without them: they could not be read.
MAX_LABELS = 60

_DPI = 100
_STYLE: Any = {"font.size": 11, "axes.titlesize": 12, "axes.spines.top": False, "axes.spines.right": False}


@contextmanager
def style(**changes: Any) -> Iterator[None]:
    """The style in which axes must be made, too."""
    with matplotlib.rc_context(_STYLE | changes):
        yield


def figure(width: float, height: float, layout: Any = "constrained") -> Figure:
    """A figure of so many pixels."""
    with style():
        return Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, layout=layout)


def render(drawn: Figure) -> Image.Image:
    """The figure as an RGB picture, one pixel per dot."""
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())

"""How many keys each head needs, drawn: measured and published figures look alike, so that one can be held against the
other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import PowerNorm
from PIL import Image

from .figures import BLUE, MAX_LABELS, figure, render

#: Colours go by the square root, on one scale for all pictures: half of the heads lie below a tenth of it.
_NORM = PowerNorm(0.5, 0, 1)
_TICKS = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 1)


def needed_picture(needed: np.ndarray, title: str, layers: Sequence[int], heads: Sequence[int]) -> Image.Image:
    """The share of the keys that each head needs, as a colour and of few heads as a number, and the mean of each layer.

    needed: (layers, heads), 0 to 1.
    """
    drawn = figure(980, max(360, 150 + 14 * len(layers)))
    by_head, by_layer = drawn.subplots(1, 2, sharey=True, width_ratios=[3.4, 1])
    shown = by_head.imshow(needed, cmap="viridis", norm=_NORM, aspect="auto", interpolation="nearest")
    if needed.size <= MAX_LABELS:
        for (y, x), value in np.ndenumerate(needed):
            ink = "black" if _NORM(value) > 0.55 else "white"
            by_head.text(x, y, f"{value:.1%}", ha="center", va="center", color=ink, fontsize=10)
    bar = drawn.colorbar(shown, ax=by_head, pad=0.02, ticks=_TICKS)
    bar.ax.set_yticklabels([f"{tick:.0%}" for tick in _TICKS])
    by_head.set_title(title, loc="left")
    by_head.set_xlabel("head")
    by_head.set_ylabel("layer")
    across, down = (max(1, -(-count // most)) for count, most in ((len(heads), 14), (len(layers), 20)))
    by_head.set_xticks(range(0, len(heads), across), [str(head) for head in heads[::across]])
    by_head.set_yticks(range(0, len(layers), down), [str(layer) for layer in layers[::down]])
    means = 100 * needed.mean(1)
    by_layer.barh(range(len(layers)), means, 0.75, color=BLUE)
    by_layer.set_title("mean", loc="left")
    by_layer.set_xlabel("% of the keys")
    by_layer.set_xlim(0, max(60, means.max() * 1.02))
    by_layer.grid(axis="x", alpha=0.25)
    by_head.set_ylim(len(layers) - 0.5, -0.5)
    return render(drawn)

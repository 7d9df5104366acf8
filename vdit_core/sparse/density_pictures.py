"""Pictures of what each head needs: a heat map of layers and heads."""

from __future__ import annotations

from matplotlib.colors import PowerNorm
from PIL import Image

from ..reporting.figures import BLUE, figure, render
from .density_profile import DensityProfile

#: Colours go by the square root, on one scale for all pictures: half of the heads lie below a tenth of it.
_TICKS = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 1)


def needed_picture(profile: DensityProfile) -> Image.Image:
    """The density each head needs, as a colour, and the mean of each layer's heads."""
    layers, heads, needed = profile.model.layers, profile.model.heads, profile.table()
    drawn = figure(980, max(360, 150 + 14 * layers))
    by_head, by_layer = drawn.subplots(1, 2, sharey=True, width_ratios=[3.4, 1])
    shown = by_head.imshow(needed, cmap="viridis", norm=PowerNorm(0.5, 0, 1), aspect="auto", interpolation="nearest")
    bar = drawn.colorbar(shown, ax=by_head, pad=0.02, ticks=_TICKS)
    bar.ax.set_yticklabels([f"{tick:.0%}" for tick in _TICKS])
    by_head.set_title(f"{profile.name}: keys that hold {profile.mass:.0%} of the mass", loc="left")
    by_head.set_xlabel("head")
    by_head.set_ylabel("layer")
    by_head.set_xticks(range(0, heads, max(1, heads // 12)))
    by_head.set_yticks(range(0, layers, 2))
    by_layer.barh(range(layers), 100 * needed.mean(1), 0.75, color=BLUE)
    by_layer.set_title("mean", loc="left")
    by_layer.set_xlabel("% of the keys")
    by_layer.set_xlim(0, max(60, 100 * needed.mean(1).max() * 1.02))
    by_layer.grid(axis="x", alpha=0.25)
    by_head.set_ylim(layers - 0.5, -0.5)
    return render(drawn)

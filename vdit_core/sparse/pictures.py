"""Pictures of sparsity: what each head tolerates and gets, what masking costs, and quality over density."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from PIL import Image

from ..reporting.figures import BLUE, INK, MAX_LABELS, ORANGE, PALE, figure, render
from ..reporting.needed_keys import needed_picture
from .ablation import LayerAblation
from .calibration import LocalErrors
from .density_profile import DensityProfile
from .profile import SparseProfile
from .quality import Comparison

_UNIFORM, _PROFILE = ORANGE, BLUE


def profile_picture(profile: SparseProfile, local: LocalErrors, found: LayerAblation | None = None) -> Image.Image:
    """What each head tolerates and what the profile gives it, and what masking a layer costs the video."""
    layers, heads = profile.model.layers, profile.model.heads
    level = int(np.abs(np.array(local.levels) - profile.density).argmin())
    errors = local.plain[:, :, level] / np.maximum(local.energy, 1e-30)
    drawn = figure(1000 if found else 760, max(420, 150 + 26 * layers), layout="constrained")
    axes = drawn.subplots(1, 3 if found else 2, sharey=True, width_ratios=[1, 1, 1.3] if found else [1, 1])
    low = max(float(errors.max()) * 1e-6, float(errors[errors > 0].min(initial=1.0)))
    tolerated: Any = LogNorm(low, max(float(errors.max()), low * 1.01))
    _table(
        drawn,
        axes[0],
        errors,
        f"Error with {local.levels[level]:.0%} kept\n(of the output's square)",
        "magma",
        tolerated,
    )
    _table(
        drawn, axes[1], profile.densities(), f"Density at {profile.density:.0%} on average", "viridis", Normalize(0, 1)
    )
    axes[0].set_ylabel("layer")
    axes[0].set_yticks(range(layers))
    axes[0].set_ylim(layers - 0.5, -0.5)
    for one in axes[:2]:
        one.set_xlabel("head")
        one.set_xticks(range(0, heads, max(1, heads // 12)))
    if found:
        _alone(axes[2], found)
    return render(drawn)


def _table(drawn: Any, axes: Axes, table: np.ndarray, title: str, colors: str, norm: Any) -> None:
    shown = axes.imshow(np.clip(table, norm.vmin, norm.vmax), cmap=colors, norm=norm, aspect="auto")
    drawn.colorbar(shown, ax=axes, shrink=0.9, pad=0.02)
    axes.set_title(title, loc="left")
    if table.size <= MAX_LABELS:
        for (layer, head), value in np.ndenumerate(table):
            bright = norm(max(value, norm.vmin)) > 0.6
            text = f"{value:.2f}" if value >= 0.01 else f"{value:.0e}"
            axes.text(head, layer, text, ha="center", va="center", color="black" if bright else "white", fontsize=9)


def _alone(axes: Axes, found: LayerAblation) -> None:
    values = [case.quality.psnr for case in found.alone]
    spared = set(found.worst[: len(found.all_but)])
    colors = [_UNIFORM if layer in spared else PALE for layer in range(len(values))]
    axes.barh(range(len(values)), values, 0.72, color=colors)
    lines = [(found.everything, "all layers", INK, "--")]
    if found.all_but:
        lines.append((found.all_but[-1], f"all but the worst {len(found.all_but)}", _PROFILE, "-"))
    for case, name, color, style in lines:
        decibel = case.quality.psnr
        axes.axvline(decibel, color=color, linestyle=style, linewidth=1.4, label=f"{name}: {decibel:.1f} dB")
    axes.set_title(f"Video, that layer alone at {found.level:.0%}", loc="left")
    axes.set_xlabel("PSNR to the dense video, dB")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), frameon=False, fontsize=10)


def pareto(quality: Comparison) -> Image.Image:
    """PSNR over density and over the seconds of sampling, uniform and by the profile."""
    drawn = figure(1000, 420, layout="constrained")
    panels = drawn.subplots(1, 2, sharey=True)
    for profiled, color, marker, name in ((False, _UNIFORM, "o", "uniform"), (True, _PROFILE, "s", "profile")):
        chosen = sorted((t for t in quality.videos if t.profiled == profiled), key=lambda t: t.computed)
        if not chosen:
            continue
        for axes, read in ((panels[0], lambda t: 100 * t.computed), (panels[1], lambda t: t.seconds)):
            axes.plot(
                [read(t) for t in chosen], [t.quality.psnr for t in chosen], color=color, marker=marker, label=name
            )
    panels[0].set_xlabel("of all maps computed, %")
    panels[0].set_ylabel("PSNR to the dense video, dB")
    panels[0].legend(frameon=False)
    panels[0].set_title(f"Quality over density · {quality.method}", loc="left")
    panels[1].axvline(quality.seconds, color=INK, linestyle="--", linewidth=1.2)
    panels[1].text(quality.seconds, panels[1].get_ylim()[0], " dense", color=INK, va="bottom", fontsize=10)
    panels[1].set_xlabel("seconds of sampling")
    panels[1].set_title("Quality over time", loc="left")
    for axes in panels:
        axes.grid(alpha=0.25)
    return render(drawn)


def needed_by(profile: DensityProfile) -> Image.Image:
    """What each head needs by a published measurement."""
    title = f"{profile.name}: keys that hold {profile.mass:.0%} of the mass"
    return needed_picture(profile.table(), title, range(profile.model.layers), range(profile.model.heads))

"""A sparsity profile in words: which layers tolerate what."""

from __future__ import annotations

from collections.abc import Iterable

from ..reporting.tables import markdown
from .ablation import LayerAblation
from .density_profile import DensityProfile
from .profile import SparseProfile
from .profile_comparison import beside_published


def describe(
    profile: SparseProfile, found: LayerAblation | None = None, published: DensityProfile | None = None
) -> str:
    """A few sentences and a table (Markdown). published: the preset that fits the model."""
    densities = profile.densities()
    means = densities.mean(1)
    falling = sorted(range(len(means)), key=lambda layer: -means[layer])
    text = (
        f"Method {profile.method}, {profile.density:.0%} of the maps on average. Most is spent on layers "
        f"{', '.join(map(str, falling[:3]))} ({means[falling[0]]:.0%} of layer {falling[0]}), least on "
        f"{', '.join(map(str, falling[-3:]))} ({means[falling[-1]]:.0%} of layer {falling[-1]})."
    )
    heads = ["layer", "density by head", "temperature by head", *(["alone, dB", "SSIM"] if found else [])]
    rows = []
    temperatures = profile.temperatures(densities)
    for layer, row in enumerate(densities):
        cells = [str(layer), _percent(row), " ".join(f"{value:.2f}" for value in temperatures[layer])]
        if found:
            cells += [f"{found.alone[layer].quality.psnr:.1f}", f"{found.alone[layer].quality.ssim:.3f}"]
        rows.append(cells)
    if found:
        spared = "; ".join(f"{case.label} {case.quality.psnr:.1f}" for case in found.all_but)
        everything = f"all layers masked {found.everything.quality.psnr:.1f} dB"
        text += f" In the video, {found.level:.0%} kept: {everything}; {spared} dB."
    return f"{text}\n\n{beside_published(profile, published)}\n\n{markdown(heads, rows, aligned=True)}"


def _percent(row: Iterable[float]) -> str:
    return " ".join(f"{value:.0%}" for value in row)

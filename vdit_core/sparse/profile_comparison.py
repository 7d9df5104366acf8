"""A measured profile beside a published one, in words: how they differ, and how alike they spend a density."""

from __future__ import annotations

import numpy as np

from ..ranks import rank_correlation
from .density_profile import DensityProfile
from .methods import BY_STRENGTH
from .profile import SparseProfile

_MOST = 5  # heads that are named

_DIFFERENCE = (
    "This profile holds errors of the attention's output, measured on this model, prompt and size. A published profile "
    "holds the share of the keys that carries most of each head's attention, measured by others on videos that are not "
    "known: use it where nothing was measured."
)


def beside_published(profile: SparseProfile, published: DensityProfile | None) -> str:
    """A few sentences. published: the preset that fits the model, or None."""
    if published is None:
        return f"{_DIFFERENCE} No published profile fits this model."
    if profile.method not in BY_STRENGTH:
        return f"{_DIFFERENCE} No published profile speaks of the method {profile.method}: it chooses by place."
    own = profile.densities()
    other = published.densities(profile.density)
    apart = own - other
    falling = np.argsort(-np.abs(apart), axis=None, kind="stable")[:_MOST]
    heads = [np.unravel_index(int(place), own.shape) for place in falling]
    named = ", ".join(f"{layer}@{head} {own[layer, head]:.0%} ({other[layer, head]:.0%})" for layer, head in heads)
    alike = rank_correlation(own, other) or 0.0
    return (
        f"{_DIFFERENCE} Beside that of {published.name}, both at {profile.density:.0%} on average: rank correlation of "
        f"the heads' densities {alike:.2f}, mean difference {np.abs(apart).mean():.1%}. Most "
        f"apart, layer@head with this one's density (and the published one's): {named}."
    )

"""Density profiles of published models, made from tables that others measured and published: see NOTICE.

What the figures are and are not: docs/real_wan.md. `tools/real_wan.py` makes the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from ...call import ModelSignature
from ..density_profile import DensityProfile
from ..methods import BY_STRENGTH
from ..profile import ProfileError

_FILES = {
    "Wan2.1 1.3B T2V": "wan2.1_1.3b_t2v",
    "Wan2.1 14B T2V": "wan2.1_14b_t2v",
    "Wan2.1 14B I2V": "wan2.1_14b_i2v",
    "Wan2.2 A14B T2V high noise": "wan2.2_a14b_t2v_high_noise",
    "Wan2.2 A14B T2V low noise": "wan2.2_a14b_t2v_low_noise",
    "Wan2.2 A14B I2V high noise": "wan2.2_a14b_i2v_high_noise",
    "Wan2.2 A14B I2V low noise": "wan2.2_a14b_i2v_low_noise",
}
NAMES = tuple(_FILES)

#: What can be said in the place of a name: the one that fits, or none.
AUTO, NONE = "auto", "none"
CHOICES = (AUTO, NONE, *NAMES)

_1_3B, _14B = ModelSignature(30, 12, 128), ModelSignature(40, 40, 128)
#: Wan2.1 takes a picture by its own embedding, and a host calls it I2V; Wan2.2 by its latents alone.
_I2V, _I2V_BY_LATENTS = "wan i2v ", "wan t2v 36 -> "
#: The experts of I2V change at noise level 0.9. A sampler that begins below it, or ends above it, has one of them; the
#: margins leave room for workflows that change at another step.
_LOW_BEGINS, _HIGH_ENDS = 0.95, 0.8


@cache
def load(name: str) -> DensityProfile:
    """A preset by its name. Raises ProfileError for another one, with the names that are."""
    if name not in _FILES:
        raise ProfileError(f"There is no published profile {name!r}; those that are: {', '.join(NAMES)}.")
    return DensityProfile.load(path_of(name))


def path_of(name: str) -> Path:
    """A preset's file."""
    return Path(__file__).with_name(f"{_FILES[name]}.json")


def matching(model: ModelSignature, kind: str = "", levels: Sequence[float] = ()) -> DensityProfile | None:
    """The preset that fits a model, or None.

    kind: as `Run.kind`; "" if it is not known. levels: the noise levels of the run, falling, if they are known.

    Models of one shape share most of their pattern. So where more is not known, a shape gets Wan2.1's T2V; an expert of
    Wan2.2 T2V, which no host can tell from that, too.
    """
    if kind and not kind.startswith("wan "):
        return None
    if model == _1_3B:
        return load("Wan2.1 1.3B T2V")
    if model != _14B:
        return None
    if kind.startswith(_I2V):
        return load("Wan2.1 14B I2V")
    if kind.startswith(_I2V_BY_LATENTS):
        high = bool(levels) and levels[0] >= _LOW_BEGINS and levels[-1] > _HIGH_ENDS
        return load(f"Wan2.2 A14B I2V {'high' if high else 'low'} noise")
    return load("Wan2.1 14B T2V")


def chosen(
    choice: str, method: str, model: ModelSignature, kind: str = "", levels: Sequence[float] = ()
) -> DensityProfile | None:
    """The preset that one of CHOICES means for a model and method; None: there is none to use.

    Raises:
        ProfileError: if one is named that does not fit them, or that there is not.
    """
    if choice == NONE or (choice == AUTO and method not in BY_STRENGTH):
        return None
    if choice == AUTO:
        return matching(model, kind, levels)
    profile = load(choice)
    profile.check(model, method)
    return profile

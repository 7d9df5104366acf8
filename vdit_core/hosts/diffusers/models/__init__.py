"""The model families in diffusers: one file a family, one row of this table."""

from __future__ import annotations

from typing import Any

from .cogvideox import CogVideoX
from .cosmos import Cosmos
from .family import Family
from .hunyuan_video import HunyuanVideo, HunyuanVideo15
from .ltx_video import LTXVideo
from .mochi import Mochi
from .wan import Wan

FAMILIES: tuple[Family, ...] = (
    Wan(),
    HunyuanVideo(),
    HunyuanVideo15(),
    Mochi(),
    CogVideoX(),
    LTXVideo(),
    Cosmos(),
)


def family_of(transformer: Any) -> Family:
    """The family of a pipeline's transformer.

    Raises:
        RuntimeError: if it is none of those known, naming these.
    """
    name = type(transformer).__name__
    for family in FAMILIES:
        if name in family.transformers:
            return family
    known = ", ".join(name for family in FAMILIES for name in family.transformers)
    raise RuntimeError(f"{name} is not a transformer whose tokens this pack knows; it knows {known}.")

"""The model families whose tokens are known: one file a family, one row of this table."""

from __future__ import annotations

from typing import Any

from .cogvideox import CogVideoX
from .cosmos_predict2 import CosmosPredict2
from .family import Family, Parts, class_of
from .hunyuan_video import HunyuanVideo
from .kandinsky5 import Kandinsky5
from .ltx_video import LTXVideo
from .mochi import Mochi
from .wan import Wan

FAMILIES: tuple[Family, ...] = (
    Wan(),
    HunyuanVideo(),
    Mochi(),
    CogVideoX(),
    LTXVideo(),
    CosmosPredict2(),
    Kandinsky5(),
)

__all__ = ["FAMILIES", "Family", "Parts", "bare", "family_of", "network_of", "unknown"]


def network_of(model: Any) -> Any:
    """The network of a model patcher, without what torch.compile puts around it."""
    return bare(model.model.diffusion_model)


def bare(network: Any) -> Any:
    """A network without what torch.compile puts around it."""
    return getattr(network, "_orig_mod", network)


def family_of(network: Any) -> Family | None:
    """The family that a network is of, if it is known."""
    return next((family for family in FAMILIES if class_of(network) in family.networks), None)


def unknown(network: Any) -> str | None:
    """Why a network's attention cannot be served; None if it can."""
    name, family = type(network).__name__, family_of(network)
    if family is not None:
        reason = family.why_not(network)
        return None if reason is None else f"{name} is not served: {reason}"
    for family in FAMILIES:
        for unreachable, reason in family.unreachable:
            if unreachable == class_of(network):
                return f"{name} is not served: {reason}"
    known = ", ".join(family.name for family in FAMILIES)
    return f"{name} is not a model whose tokens this pack knows (it knows {known})"

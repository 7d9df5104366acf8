"""This package's GPU kernels, where they can be used."""

from __future__ import annotations

from types import ModuleType

from torch import Tensor

from ..attention.triton import kernels_take


def kernels_for(q: Tensor, k: Tensor) -> ModuleType | None:
    """`fused`, if it takes such queries and keys; None: the plain path serves."""
    if not kernels_take(q, k):
        return None
    from . import fused  # imports Triton

    return fused

"""Whether this pack's GPU kernels can be used: they need Triton, which not every machine has."""

from __future__ import annotations

from types import ModuleType

from torch import Tensor


def kernels_for(q: Tensor, k: Tensor) -> ModuleType | None:
    """`fused`, if it takes such queries and keys; None: the plain path serves."""
    if not q.is_cuda:
        return None
    try:
        from . import fused
    except ImportError:
        return None
    return fused if fused.takes(q, k) else None

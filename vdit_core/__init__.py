"""Seeing and steering attention inside video diffusion transformers.

The public API: what a script needs, in one import. `attach` is for a diffusers pipeline; a ComfyUI MODEL has
`vdit_core.hosts.comfy.attach`. A name is imported when it is first used, so that none costs those who do without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .call import AttentionCall, Chain, Interceptor, ModelSignature, Run, Site, TokenGrid
    from .errors import VDiTError
    from .head_mask import HeadMask
    from .hosts.diffusers import attach
    from .maps.observer import MapObserver
    from .maps.statistics import MapStatistics, map_statistics
    from .recording.budget import MemoryBudget
    from .recording.recorder import Recorder
    from .recording.store import AttentionStore
    from .roles.classify import Roles, head_roles
    from .roles.observer import RoleObserver
    from .roles.presets import preset_mask
    from .selection import Indices, LayerMask, Selection
    from .sinks.control import SinkControl, Targets
    from .sinks.detect import Findings, detect
    from .sinks.observer import SinkObserver
    from .sparse.calibration import Calibration
    from .sparse.config import SparseConfig
    from .sparse.density_profile import DensityProfile
    from .sparse.profile import SparseProfile
    from .sparse.sparse_attention import SparseAttention
    from .transfer import LiveTransfer, Transfer, TransferConfig

_EXPORTS = {
    "call": ("AttentionCall", "Chain", "Interceptor", "ModelSignature", "Run", "Site", "TokenGrid"),
    "errors": ("VDiTError",),
    "head_mask": ("HeadMask",),
    "hosts.diffusers": ("attach",),
    "maps.observer": ("MapObserver",),
    "maps.statistics": ("MapStatistics", "map_statistics"),
    "recording.budget": ("MemoryBudget",),
    "recording.recorder": ("Recorder",),
    "recording.store": ("AttentionStore",),
    "roles.classify": ("Roles", "head_roles"),
    "roles.observer": ("RoleObserver",),
    "roles.presets": ("preset_mask",),
    "selection": ("Indices", "LayerMask", "Selection"),
    "sinks.control": ("SinkControl", "Targets"),
    "sinks.detect": ("Findings", "detect"),
    "sinks.observer": ("SinkObserver",),
    "sparse.calibration": ("Calibration",),
    "sparse.config": ("SparseConfig",),
    "sparse.density_profile": ("DensityProfile",),
    "sparse.profile": ("SparseProfile",),
    "sparse.sparse_attention": ("SparseAttention",),
    "transfer": ("LiveTransfer", "Transfer", "TransferConfig"),
}
_MODULE = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = [
    "AttentionCall",
    "AttentionStore",
    "Calibration",
    "Chain",
    "DensityProfile",
    "Findings",
    "HeadMask",
    "Indices",
    "Interceptor",
    "LayerMask",
    "LiveTransfer",
    "MapObserver",
    "MapStatistics",
    "MemoryBudget",
    "ModelSignature",
    "Recorder",
    "RoleObserver",
    "Roles",
    "Run",
    "Selection",
    "SinkControl",
    "SinkObserver",
    "Site",
    "SparseAttention",
    "SparseConfig",
    "SparseProfile",
    "Targets",
    "TokenGrid",
    "Transfer",
    "TransferConfig",
    "VDiTError",
    "attach",
    "detect",
    "head_roles",
    "map_statistics",
    "preset_mask",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE})

"""How much memory or disk a recording may take, beside what ComfyUI needs itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import comfy.model_management
import folder_paths
import psutil

from ..vdit_core.recording.budget import MemoryBudget
from ..vdit_core.recording.store import page_locked

_SHARE = 0.9  # of what is free
_HEADROOM = 2 * 2**30


def temporary() -> Path:
    """Where recordings on disk are kept while they are used; ComfyUI empties it when it starts."""
    return Path(folder_paths.get_temp_directory()) / "vdit_attention"


def granted(gib: float) -> MemoryBudget:
    """What the user grants, and never more than is free."""
    return MemoryBudget(gib * 2**30, _free)


def _free(tier: str, wanted: float) -> float:
    if tier == "disk":
        folder = temporary()
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        return _SHARE * shutil.disk_usage(existing).free
    if tier == "GPU":
        device = comfy.model_management.get_torch_device()
        return _SHARE * comfy.model_management.get_free_memory(device)
    management = getattr(comfy, "memory_management", None)  # newer than the oldest ComfyUI that we know
    release = getattr(management, "extra_ram_release", None)
    if release is not None:  # ComfyUI lets go of cached results if RAM is that short
        release(wanted + _HEADROOM)
    free = _SHARE * psutil.virtual_memory().available
    if free < wanted and page_locked.POOL.trim():  # kept for a next recording; this one needs it otherwise
        free = _SHARE * psutil.virtual_memory().available
    return min(free, _unpinned()) if tier == "pinned RAM" else free


def _unpinned() -> float:
    """What ComfyUI leaves of the page-locked RAM that it allows itself; all, if it has no bounds."""
    most = getattr(comfy.model_management, "MAX_PINNED_MEMORY", 0)
    return most - comfy.model_management.TOTAL_PINNED_MEMORY if most > 0 else float("inf")

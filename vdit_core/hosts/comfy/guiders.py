"""Which passes of guidance a ComfyUI guider computes, what they are called, and in which steps they come.

Rows have the names of conditionings, not of their place in a batch, which depends on free memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import torch

Conds = Mapping[str, Sequence[dict[str, Any]] | None]

_NAMES = {"positive": "cond", "negative": "uncond"}


def branch_names(conds: Conds) -> dict[UUID, list[str]]:
    """The branches of each conditioning entry of a guider: cond, uncond, or the guider's own word; further ones of a
    kind are numbered. An entry is more than one branch where ComfyUI repeats it for an area of another."""
    names: dict[UUID, list[str]] = {}
    for name, entry in _branches(conds):
        names.setdefault(entry["uuid"], []).append(name)
    return names


def branches_to_come(guider: Any) -> tuple[str, ...]:
    """The branches that a guider will compute."""
    without = _left_out(guider)
    return tuple(name for name, _ in _branches({kind: c for kind, c in guider.conds.items() if kind not in without}))


def absent(guider: Any, sigmas: Sequence[float]) -> frozenset[tuple[int, str]]:
    """The (step, branch) pairs that do not come, because a conditioning is scheduled for other steps."""
    levels = torch.tensor(sigmas)
    pairs = set()
    for name, entry in _branches(guider.conds):
        outside = (levels > entry.get("timestep_start", math.inf)) | (levels < entry.get("timestep_end", 0.0))
        pairs |= {(int(step), name) for step in outside.nonzero()}
    return frozenset(pairs)


def _branches(conds: Conds) -> list[tuple[str, dict[str, Any]]]:
    """Name and conditioning of every branch."""
    return [
        (_NAMES.get(kind, kind) + (f" {n + 1}" if n else ""), entry)
        for kind, entries in conds.items()
        for n, entry in enumerate(entries or ())
    ]


def _left_out(guider: Any) -> set[str]:
    """The kinds of conditioning that ComfyUI does not compute, since they would not count at the guider's settings."""
    if guider.model_options.get("disable_cfg1_optimization", False):
        return set()
    match sorted(guider.conds):
        case ["negative", "positive"]:
            return {"negative"} if all(math.isclose(scale, 1) for scale in _scales(guider)) else set()
        case ["middle", "negative", "positive"] if not getattr(guider, "nested", False):  # DualCFGGuider
            return {"negative", *({"middle"} if _is(guider, "cfg1", 1) else ())} if _is(guider, "cfg2", 1) else set()
        case ["empty_negative_prompt", "negative", "positive"]:  # PerpNegGuider
            if not _is(guider, "neg_scale", 0):
                return set()
            return {"negative", *({"empty_negative_prompt"} if _is(guider, "cfg", 1) else ())}
    return set()


def one_noise(guider: Any) -> bool:
    """Whether a guider gives all rows of its batch the same noise by itself, as an edit's does."""
    return getattr(guider, "one_noise", False)


def _scales(guider: Any) -> tuple[float, ...]:
    """The guidance of each row; an edit's rows have two."""
    return getattr(guider, "scales", None) or (getattr(guider, "cfg", math.nan),)


def _is(guider: Any, name: str, value: float) -> bool:
    return math.isclose(getattr(guider, name, math.nan), value)

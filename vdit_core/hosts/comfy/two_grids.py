"""Why a run computes attention on two grids, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...call import TokenGrid
from ...coverage import prompt_name


@dataclass(frozen=True)
class Inputs:
    """What decides the grid of a model call.

    size: of its latents, frames x height x width. subjects: frames of subject pictures behind them. window: whether it
    is a part of the video. branches: the prompts that it computes.
    """

    grid: TokenGrid
    size: tuple[int, ...]
    subjects: int
    window: bool
    branches: tuple[str, ...]

    @classmethod
    def of(
        cls, grid: TokenGrid, x: Tensor, options: Mapping[str, Any], conds: Mapping[str, Any], branches: Sequence[str]
    ) -> Inputs:
        subjects = conds.get("time_dim_concat")
        frames = 0 if subjects is None else subjects.shape[2]
        return cls(grid, tuple(x.shape[2:]), frames, options.get("context_window") is not None, tuple(branches))


def two_grids(first: Inputs, second: Inputs, strict: Sequence[str]) -> str:
    """Why a run cannot go on with a second grid: the cause, and what to do.

    strict: who works on one grid only.
    """
    cause, remedy = _cause(first, second)
    return (
        f"{cause} So this run computes attention on a grid of {second.grid} after one of {first.grid}, and recorded "
        f"maps fit one grid only ({', '.join(strict)}). {remedy}"
    )


def _cause(first: Inputs, second: Inputs) -> tuple[str, str]:
    if first.subjects != second.subjects:
        with_them, without = (first, second) if first.subjects > second.subjects else (second, first)
        return (
            f"The {_prompts(with_them)} has subject pictures (Phantom), the {_prompts(without)} has none or fewer.",
            "Connect the negative outputs of the node that added the pictures, not the plain negative prompt.",
        )
    if first.grid.prefix != second.grid.prefix:
        return (
            f"The {_prompts(first)} and the {_prompts(second)} have other reference pictures.",
            "Give every prompt the same reference, the negative one too.",
        )
    if first.grid.suffix != second.grid.suffix:
        return (
            f"The {_prompts(first)} and the {_prompts(second)} have other context pictures or videos.",
            "Give every prompt the same, the negative one too.",
        )
    if first.window or second.window:
        return (
            "Context windows cut this video into windows of several lengths.",
            "Record and transfer without context windows; or use Context Windows (Manual) with its causal window fix "
            "off and a static schedule, whose windows are of one length.",
        )
    return (
        "A conditioning with an area computes a part of the picture by itself.",
        "Remove the areas, or use live transfer, which works on any grid.",
    )


def _prompts(inputs: Inputs) -> str:
    return " and the ".join(dict.fromkeys(map(prompt_name, inputs.branches)))

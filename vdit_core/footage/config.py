"""How a clip is edited: how much may change, how strongly each prompt guides, how many draws of noise are averaged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import VDiTError


class FootageError(VDiTError, ValueError):
    """A clip that the model cannot take, or settings that make no edit."""


@dataclass(frozen=True)
class EditConfig:
    """change: how much of the noise schedule is used, from its end; the first 1 - change of it is skipped, and with it
    what only the strongest noise decides. source_guidance, target_guidance: scales of classifier-free guidance.
    draws: how many draws of noise are averaged in each step; each costs as much as the first.
    finish: a last step from a noise level of at most this gives what the model makes of the edit; else, and with 0,
    what it cannot predict of the footage is added as in all steps, which keeps grain but also traces of what was there.
    hold: where an edit moved its latents by less than this share of the most it moved any, they are put back.

    Raises:
        FootageError: if a value is out of range.
    """

    change: float = 0.9
    source_guidance: float = 1.5
    target_guidance: float = 2.0
    draws: int = 1
    finish: float = 0.15
    hold: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.change <= 1:
            raise FootageError(f"change is {self.change}; it is a share of the schedule, above 0 and at most 1.")
        for name in ("source_guidance", "target_guidance"):
            if not (math.isfinite(scale := getattr(self, name)) and scale >= 0):
                raise FootageError(f"{name} is {scale}; it is a scale of guidance, 0 or more, and 1 is none.")
        for name, what in (("finish", "noise level"), ("hold", "share")):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise FootageError(f"{name} is {value}; it is a {what}, from 0 to 1.")
        if self.draws < 1:
            raise FootageError(f"{self.draws} draws of noise; at least 1 is needed.")

    def scales(self, targets: int) -> tuple[float, ...]:
        """The guidance of each row: of the source, then of the targets."""
        return (self.source_guidance, *[self.target_guidance] * targets)


def first_step(sigmas: Sequence[float], start: float) -> int:
    """The first of falling noise levels that is not above `start`; there may be none, then it is their number."""
    return sum(sigma > start * (1 + 1e-4) for sigma in sigmas)

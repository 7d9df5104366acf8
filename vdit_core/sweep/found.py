"""What a search by goal found: its path, everything it tried, and the report on both."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from ..head_mask import HeadMask
from ..reporting.tables import markdown
from .goal import SearchConfig, Traded, front
from .plan import Sweep


@dataclass(frozen=True)
class Trial:
    """The target under one mask. round: from 1. label: of the group that was added in it. has: of the goal."""

    round: int
    label: str
    mask: HeadMask
    has: Traded


@dataclass(frozen=True)
class Taken:
    """A group that a round took, with those before it. gain: what it added to the trade."""

    trial: Trial
    gain: float


@dataclass(frozen=True)
class Found:
    """The result of a search.

    sweep: what could be added. plain: of the plain target. path: what was taken, in order. trials: every mask that was
    tried, once. mask: what was found; "none" if no group improves the trade. stopped: why, as a clause. clips: of the
    source, of the plain target and after each group of the path, float in [0, 1], (clips, 3, frames, height, width).
    """

    sweep: Sweep
    config: SearchConfig
    plain: Traded
    path: tuple[Taken, ...]
    trials: tuple[Trial, ...]
    mask: HeadMask
    stopped: str
    clips: Tensor

    @property
    def has(self) -> Traded:
        """What the target under the found mask has of the goal."""
        return self.path[-1].trial.has if self.path else self.plain

    def front(self) -> list[Trial]:
        """The tried masks that no other betters both in what is kept and in what is free, by rising `kept`."""
        return [self.trials[i] for i in front([trial.has for trial in self.trials])]

    def verdict(self) -> str:
        """What was found, in a sentence."""
        tried = f"{len(self.trials)} masks tried; {self.stopped}"
        if not self.path:
            return f"No head group brings the target nearer to “{self.config.goal}” ({tried})."
        labels = "; ".join(step.trial.label for step in self.path)
        return (
            f"Found for “{self.config.goal}”: {labels}. Kept {self.has.kept:.2f}, free {self.has.free:.2f}, "
            f"trade {self.plain.trade:.2f} → {self.has.trade:.2f} ({tried})."
        )

    def as_text(self) -> str:
        """The path as a table (Markdown): the plain target, then the found mask group by group."""
        goal = self.config.goal
        parts = [*(f"keep {name}" for name in goal.keep), *(f"free {name}" for name in goal.free)]
        lines = [["0", "plain target", *_cells(self.plain), "", *_parts(self.plain)]]
        for n, step in enumerate(self.path, start=1):
            label = f"+ {step.trial.label}"
            lines.append([str(n), label, *_cells(step.trial.has), f"{step.gain:.3f}", *_parts(step.trial.has)])
        heads = ["groups", "added", "kept", "free", "trade", "gain", *parts]
        return f"{self.verdict()}\n\n{markdown(heads, lines, aligned=True)}"

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it, rounded to four places; what is no finite number is null."""
        on_front = {trial.mask.text for trial in self.front()}
        goal = self.config.goal
        return {
            "settings": self.sweep.settings(),
            "goal": {"keep": list(goal.keep), "free": list(goal.free), "weight": goal.weight},
            "most_groups": self.config.most_groups,
            "least_gain": self.config.least_gain,
            "candidates": self.config.candidates,
            "groups": [{"label": group.label, "mask": group.mask.text} for group in self.sweep.groups],
            "plain": _rounded(self.plain),
            "path": [
                {"added": step.trial.label, "mask": step.trial.mask.text, "gain": round(step.gain, 4)}
                | _rounded(step.trial.has)
                for step in self.path
            ],
            "trials": [
                {"round": trial.round, "added": trial.label, "mask": trial.mask.text}
                | {"on_front": trial.mask.text in on_front}
                | _rounded(trial.has)
                for trial in self.trials
            ],
            "found": {"mask": self.mask.text, "layers": self.mask.layers, "heads": self.mask.heads},
            "stopped": self.stopped,
        }


def _cells(has: Traded) -> list[str]:
    return [f"{value:.3f}" for value in (has.kept, has.free, has.trade)]


def _parts(has: Traded) -> list[str]:
    return [f"{value:.3f}" for value in has.parts.values()]


def _rounded(has: Traded) -> dict[str, Any]:
    def one(value: float) -> float | None:
        return round(value, 4) if math.isfinite(value) else None

    found = asdict(has)
    return {name: one(found[name]) for name in ("kept", "free", "trade")} | {
        "parts": {name: one(value) for name, value in has.parts.items()}
    }

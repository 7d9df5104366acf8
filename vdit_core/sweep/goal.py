"""What a search wants: one thing near the source, another near the plain target, as one trade.

Of each measure L (larger is more alike; `top` for equal videos) a video has two fractions:

    kept = (L(source, video) - L(source, plain)) / (top - L(source, plain))     1: as the source, 0: as the plain target
    free = (L(plain, video) - L(plain, source)) / (top - L(plain, source))      1: as the plain target, 0: as the source

The first is the structure share of `scores`. Of a goal's measures the fractions are averaged, and

    trade = weight * kept + (1 - weight) * free

so the plain target has the trade 1 - weight, the source has weight, and 1 is what cannot be bettered.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from torch import Tensor

from ..errors import VDiTError
from .plan import AT_ONCE


class GoalError(VDiTError, ValueError):
    """A goal that cannot be read, or that says nothing about these videos."""


@dataclass(frozen=True)
class Measure:
    """One way to compare two videos.

    likeness: of two views, larger for what is more alike. top: of equal videos. least: if source and plain target
    differ by less than this, the measure says nothing of them. unit: of the likeness, for messages.
    """

    likeness: Callable[[Any, Any], float]
    top: float = 1.0
    least: float = 0.05
    unit: str = ""


@dataclass(frozen=True)
class Measures:
    """All that a host can measure, by name.

    look: what the measures take, from a clip: float in [0, 1], (1, 3, frames, height, width).
    """

    table: Mapping[str, Measure]
    look: Callable[[Tensor], Any] = field(default=lambda clip: clip)


@dataclass(frozen=True)
class Goal:
    """keep: the measures in which a video shall be near the source. free: those in which it shall stay near the plain
    target. weight: of keep, above 0 and below 1.

    Raises:
        GoalError: if one of the two is empty, a measure is named twice, or the weight is out of range.
    """

    keep: tuple[str, ...]
    free: tuple[str, ...]
    weight: float = 0.5

    def __post_init__(self) -> None:
        if not self.keep or not self.free:
            missing = "keep" if not self.keep else "free"
            raise GoalError(f"The goal {str(self)!r} has nothing to {missing}. {_FORM}")
        for name in (named := [*self.keep, *self.free]):
            if named.count(name) > 1:
                raise GoalError(f"The goal {str(self)!r} names {name} more than once. Name it once.")
        if type(self.weight) not in (int, float) or not 0 < self.weight < 1:
            raise GoalError(
                f"The weight of keep is {self.weight!r}; give a number above 0 (free alone) and below 1 (keep alone)."
            )

    @classmethod
    def parse(cls, text: str, weight: float = 0.5) -> Goal:
        """A goal from words: "keep pan, free object", "keep motion, edges, free palette".

        Raises:
            GoalError: if the text is no goal.
        """
        named: dict[str, list[str]] = {"keep": [], "free": []}
        side = None
        for term in text.lower().split(","):
            match = re.fullmatch(r"(?:(keep|free)\s+)?([a-z][a-z ]*)", term.strip())
            side = (match and match[1]) or side
            if match is None or side is None:
                raise GoalError(f"Cannot read {term.strip()!r} in the goal {text!r}. {_FORM}")
            named[side].append(match[2])
        return cls(tuple(named["keep"]), tuple(named["free"]), weight)

    def check(self, measures: Measures) -> None:
        """Raises GoalError if a measure is not among these."""
        for name in (*self.keep, *self.free):
            if name not in measures.table:
                raise GoalError(f"There is no measure {name!r} here; there are {', '.join(measures.table)}.")

    def __str__(self) -> str:
        return ", ".join(f"{side} {', '.join(names)}" for side in ("keep", "free") if (names := getattr(self, side)))


_FORM = "Write for example: keep motion, free palette."


@dataclass(frozen=True)
class SearchConfig:
    """What a search wants, and when it stops.

    most_groups: in the found mask. least_gain: what a group must add to the trade. candidates: how many groups are
    tried in each round after the first: those that added most when they were last tried.

    Raises:
        GoalError: naming a value that is out of range.
    """

    goal: Goal
    most_groups: int = 8
    least_gain: float = 0.01
    candidates: int = 2 * (AT_ONCE - 1)

    def __post_init__(self) -> None:
        for name in ("most_groups", "candidates"):
            if type(value := getattr(self, name)) is not int or value < 1:
                raise GoalError(f"The search's {name} is {value!r}; give a whole number, 1 or more.")
        if not 0 <= self.least_gain < math.inf:
            raise GoalError(f"The search's least_gain is {self.least_gain!r}; give a number, 0 or more.")


@dataclass(frozen=True)
class Traded:
    """What a video has of a goal. parts: the fraction of each measure, kept or free as the goal names it."""

    kept: float
    free: float
    trade: float
    parts: Mapping[str, float]


class Judge:
    """Measures videos by a goal, between one source and one plain target.

    Args:
        source, plain: float in [0, 1], (1, 3, frames, height, width).

    Raises:
        GoalError: if there is no such measure, or source and plain target hardly differ in one.
    """

    def __init__(self, goal: Goal, measures: Measures, source: Tensor, plain: Tensor) -> None:
        goal.check(measures)
        self.goal, self.measures = goal, measures
        self._source, self._plain = measures.look(source), measures.look(plain)
        self._ends = dict.fromkeys(goal.keep, (self._source, self._plain))
        self._ends |= dict.fromkeys(goal.free, (self._plain, self._source))
        self._base: dict[str, float] = {}
        for name, (near, far) in self._ends.items():
            measure = measures.table[name]
            self._base[name] = measure.likeness(near, far)
            apart = measure.top - self._base[name]
            if not apart >= measure.least:  # nor what is no number
                raise GoalError(
                    f"Source and plain target hardly differ in {name}: by {apart:.3g}{measure.unit}, and less than "
                    f"{measure.least:g}{measure.unit} says nothing. Leave {name} out of the goal {str(goal)!r}, or "
                    "choose another seed or prompts that differ in it."
                )

    def plain(self) -> Traded:
        """The plain target's own: nothing kept, all free."""
        parts = dict.fromkeys(self.goal.keep, 0.0) | dict.fromkeys(self.goal.free, 1.0)
        return Traded(0.0, 1.0, 1 - self.goal.weight, parts)

    def __call__(self, clip: Tensor) -> Traded:
        """What a video has; -infinity in all if a measure of it is not a finite number.

        clip: as source and plain.
        """
        view, parts = self.measures.look(clip), dict[str, float]()
        for name, (near, _) in self._ends.items():
            measure, base = self.measures.table[name], self._base[name]
            parts[name] = (measure.likeness(near, view) - base) / (measure.top - base)
        if not all(map(math.isfinite, parts.values())):
            return Traded(-math.inf, -math.inf, -math.inf, parts)
        kept, free = (fmean(parts[name] for name in names) for names in (self.goal.keep, self.goal.free))
        return Traded(kept, free, self.goal.weight * kept + (1 - self.goal.weight) * free, parts)


def front(found: Sequence[Traded]) -> list[int]:
    """The numbers of those that no other betters in both: the Pareto front, by rising `kept`."""
    best, chosen = -math.inf, []
    for i in sorted(range(len(found)), key=lambda i: (-found[i].kept, -found[i].free)):
        if found[i].free > best:
            best = found[i].free
            chosen.append(i)
    return chosen[::-1]

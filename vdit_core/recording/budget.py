"""The memory budget of a recording, checked before the first step, and what would fit if it is too large."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate

from ..errors import VDiTError
from .store.schema import Header
from .store.storage import weight


class RecordingTooLarge(VDiTError, ValueError):
    """A recording would not fit its memory budget."""


@dataclass(frozen=True)
class MemoryBudget:
    """How many bytes a recording may take.

    allowed: what the user grants. free: what there is of a tier, asked for a size when a run begins; whoever keeps
    memory for other uses may let go of it then.
    """

    allowed: float = math.inf
    free: Callable[[str, float], float] = lambda tier, wanted: math.inf

    def of(self, tier: str, wanted: float) -> float:
        return max(0.0, min(self.allowed, self.free(tier, min(wanted, self.allowed))))


@dataclass(frozen=True)
class Demand:
    """What a recording will take: its calls are layers x (step, branch) pairs x evaluations of each.

    passes: how many of the branches come in each of the steps.
    """

    header: Header
    tier: str
    layers: int
    branches: int
    passes: tuple[int, ...]
    evaluations: int

    @property
    def calls(self) -> int:
        return self.layers * sum(self.passes) * self.evaluations

    @property
    def bytes(self) -> int:
        return self.calls * weight(self.tier, self.header)

    def check(self, budget: MemoryBudget) -> float:
        """How much the recording may take.

        Raises:
            RecordingTooLarge: if that is less than this, with the size, the budget, and settings that would fit.
        """
        limit = budget.of(self.tier, self.bytes)
        if self.bytes <= limit:
            return limit
        steps = f"{len(self.passes)} steps"
        if min(self.passes) == self.branches:
            shape = f"{self.layers} layers x {steps} x {self.branches} branches"
        else:
            shape = f"{self.layers} layers x {sum(self.passes)} passes in {steps}"
        if self.evaluations > 1:
            shape += f" x {self.evaluations} evaluations"
        fit = int(limit // weight(self.tier, self.header))
        raise RecordingTooLarge(
            f"This recording would weigh {readable(self.bytes)}, and it may take {readable(limit)} of {self.tier}: "
            f"{shape} = {self.calls} calls of {describe(self.header, self.tier)}; {fit} fit. Any of these would fit: "
            f"{', '.join(self._fitting(budget, limit))}."
        )

    def _fitting(self, budget: MemoryBudget, limit: float) -> list[str]:
        """Settings that would fit."""
        fitting = []
        if layers := int(limit // (self.bytes // self.layers)):
            last = self.header.model.layers - 1
            thinned = f", for example 0-{last}/{-(-(last + 1) // layers)}" if self.layers == last + 1 else ""
            fitting.append(f"{layers} of these layers{thinned}")
        a_pass = self.bytes // sum(self.passes)
        heaviest = accumulate(a_pass * passes for passes in sorted(self.passes, reverse=True))
        if steps := sum(size <= limit for size in heaviest):
            fitting.append(f"{steps} of these steps")
        if self.header.quantization != "int8":
            packed = replace(self, header=replace(self.header, quantization="int8")).bytes
            if packed <= limit:
                fitting.append(f"quantization int8 ({readable(packed)})")
        if self.tier != "disk" and self.bytes <= (free := budget.free("disk", 0)):
            fitting.append(f"the disk ({readable(free)} free), if {readable(self.bytes)} are granted")
        return [*fitting, "live transfer (it stores nothing)"]


def describe(header: Header, tier: str) -> str:
    """What one call weighs, and why."""
    return f"{weight(tier, header) / 2**20:.1f} MiB ({header.samples} x {header.grid}, {header.values()})"


def readable(size: float) -> str:
    """A number of bytes in words."""
    if size == math.inf:
        return "all that there is"
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit / 20:
            return f"{size / unit:.1f} {name}"
    return f"{size:.0f} bytes"

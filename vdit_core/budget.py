"""What a recording may take, checked before the first step, and what would fit if it is too large."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from .store.header import Header
from .store.shelves import weight

_GIB = 2**30


class RecordingTooLarge(ValueError):
    """A recording would not fit the room it may take."""


@dataclass(frozen=True)
class Room:
    """How many bytes a recording may take.

    allowed: what the user grants. free: what there is of a tier, asked for a size when a run begins; whoever keeps
    memory for other uses may let go of it then.
    """

    allowed: float = math.inf
    free: Callable[[str, float], float] = lambda tier, wanted: math.inf

    def of(self, tier: str, wanted: float) -> float:
        return min(self.allowed, self.free(tier, min(wanted, self.allowed)))


@dataclass(frozen=True)
class Demand:
    """What a recording will take: its calls are layers x (step, branch) pairs x evaluations of each.

    passes: how many (step, branch) pairs come.
    """

    header: Header
    tier: str
    layers: int
    steps: int
    branches: int
    passes: int
    evaluations: int

    @property
    def calls(self) -> int:
        return self.layers * self.passes * self.evaluations

    @property
    def bytes(self) -> int:
        return self.calls * weight(self.tier, self.header)

    def check(self, room: Room) -> float:
        """How much the recording may take.

        Raises:
            RecordingTooLarge: if that is less than this, with the size, the room, and settings that would fit.
        """
        limit = room.of(self.tier, self.bytes)
        if self.bytes <= limit:
            return limit
        shape = f"{self.layers} layers x {self.steps} steps x {self.branches} branches"
        if self.evaluations > 1:
            shape += f" x {self.evaluations} evaluations"
        fit = int(limit // weight(self.tier, self.header))
        raise RecordingTooLarge(
            f"This recording would weigh {gib(self.bytes)}, and it may take {gib(limit)} of {self.tier}: {shape} = "
            f"{self.calls} calls of {describe(self.header, self.tier)}; {fit} fit. Any of these would fit: "
            f"{', '.join(self._fitting(room, limit))}."
        )

    def _fitting(self, room: Room, limit: float) -> list[str]:
        """Settings that would fit."""
        fitting = []
        if layers := int(limit / (self.bytes / self.layers)):
            last = self.header.model.layers - 1
            thinned = f", for example 0-{last}/{-(-(last + 1) // layers)}" if self.layers == last + 1 else ""
            fitting.append(f"{layers} of these layers{thinned}")
        if steps := int(limit / (self.bytes / self.steps)):
            fitting.append(f"{steps} of these steps")
        if self.header.precision != "int8":
            packed = replace(self, header=replace(self.header, precision="int8")).bytes
            if packed <= limit:
                fitting.append(f"precision int8 ({gib(packed)})")
        if self.tier != "disk" and self.bytes <= (free := room.free("disk", 0)):
            fitting.append(f"the disk ({gib(free)} free), if {gib(self.bytes)} are granted")
        return [*fitting, "live transfer (it stores nothing)"]


def describe(header: Header, tier: str) -> str:
    """What one call weighs, and why."""
    return f"{weight(tier, header) / 2**20:.1f} MiB ({header.samples} x {header.grid}, {header.precision})"


def gib(size: float) -> str:
    return "all that there is" if size == math.inf else f"{size / _GIB:.1f} GiB"

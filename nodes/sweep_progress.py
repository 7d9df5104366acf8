"""How far a layer sweep is, told to the page step by step, with the time left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from torch import Tensor

from ..vdit_core.call import AttentionCall, Interceptor, ModelSignature, Proceed, Run, Site
from ..vdit_core.outcome import idle
from . import progress
from .outcomes import Telling


class Steps(Interceptor):
    """Tells of each step as it begins; changes nothing."""

    any_grid = True

    def __init__(self, begins: Callable[[int], None]) -> None:
        self.begins = begins

    def begin(self, run: Run) -> None:
        self.step = -1

    def wants(self, site: Site) -> bool:
        return site.layer == 0

    def __call__(self, call: AttentionCall, proceed: Proceed) -> Tensor:
        if call.site.step != self.step:
            self.step = call.site.step
            self.begins(self.step)
        return proceed(call)


class Progress:
    """Tells the page how far the sweep is, and how long it will take."""

    def __init__(self, telling: Telling, steps: int, model: ModelSignature) -> None:
        self.telling, self.steps, self.model = telling, steps, model
        self.plan: Sequence[Sequence[int]] = ()
        self.batch, self.start, self.within = 0, time.monotonic(), ""
        self.bar: Callable[[], None] | None = None

    def round_begins(self, number: int, groups: int) -> None:
        """A search begins a round that tries so many head groups."""
        self.within = f"round {number}, {groups} groups: "

    def begin(self, plan: Sequence[Sequence[int]]) -> None:
        """These batches are to be sampled."""
        self.plan, self.batch, self.start = plan, 0, time.monotonic()

    def step(self, step: int) -> None:
        """A step of the current batch begins."""
        self._show(step, f"step {step + 1} of {self.steps}")

    def batch_done(self) -> None:
        self.batch += 1
        if self.batch == len(self.plan):
            self._say("sampled, now decoding")
        else:
            self._show(0, "begins")

    def decoded(self, clip: Tensor, n: int, count: int) -> Tensor:
        """The clip, as it came; video n of so many is decoded."""
        self.bar = self.bar or progress.bar(count)
        self.bar()
        self._say(f"decoded {n + 1} of {count} videos")
        return clip

    def _show(self, step: int, where: str) -> None:
        """The time left, if every video of a batch takes as long: the first batch also loads the model."""
        sizes = [len(batch) * self.steps for batch in self.plan]
        did = sum(sizes[: self.batch]) + len(self.plan[self.batch]) * step
        left = (time.monotonic() - self.start) / did * (sum(sizes) - did) if did else None
        text = f"batch {self.batch + 1} of {len(self.plan)}, {where}"
        self._say(text if left is None else f"{text}, {_duration(left)} left")

    def _say(self, text: str) -> None:
        self.telling.show(idle(self.within + text), self.model)


def _duration(seconds: float) -> str:
    return f"{math.ceil(seconds)} s" if seconds < 90 else f"{math.ceil(seconds / 60)} min"

"""What a run of sparse attention did, and how fast."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..outcome import Level, Verdict, done, failed, idle

logger = logging.getLogger(__name__)


@dataclass
class SparseReport:
    """What a run did. calls count layer x step x branch; steps and layers that were to be dense are not among them.

    density: of the sparse calls, mean. seconds: of these calls; dense_seconds: what they would have taken dense.
    why_dense: why calls that were to be sparse were not, or None. spent_by: the profile that spent the density, or "".
    """

    sparse: int = 0
    expected: int = 0
    of: int = 0
    density: float = 1.0
    seconds: float = 0.0
    dense_seconds: float = 0.0
    kernel: str = ""
    why_dense: str | None = None
    spent_by: str = ""

    def verdict(self) -> Verdict:
        """What a user is told: good only if all that was to be sparse was."""
        if not self.expected:
            return idle(str(self))
        if not self.sparse and self.why_dense is None:
            return failed("nothing was left out: no call came")
        if self.sparse < self.expected and self.why_dense is None:
            return done(str(self)).but(f"{self.expected - self.sparse} calls did not come")
        return Verdict(Level.DONE if self.why_dense is None else Level.PARTLY, str(self))

    @property
    def overall(self) -> float:
        """The share of all maps of the run that was computed."""
        return 1 - (1 - self.density) * self.sparse / self.of if self.of else 1.0

    def __str__(self) -> str:
        if not self.expected:
            return "nothing to leave out: the stock result"
        text = f"computed {self.overall:.0%} of all maps ({self.sparse} of {self.of} calls at {self.density:.0%})"
        if self.sparse and self.dense_seconds:
            ratio = self.dense_seconds / max(self.seconds, 1e-9)
            saved = self.dense_seconds - self.seconds
            text += f" by {self.kernel}, "
            text += (
                f"{ratio:.1f}x as fast as dense, {saved:.1f} s saved"
                if ratio >= 1
                else f"{ratio:.2f}x as fast as dense"
            )
        if self.sparse and self.spent_by:
            text += f", spent by {self.spent_by}"
        return f"{text}; {self.why_dense}" if self.why_dense else text


@dataclass
class SparseCall:
    """One call that was sparse; its figures stay on the device until the run is over.

    calls: how many branches of guidance it held. kernel: what computed it. dense: seconds that it would have taken.
    """

    calls: int
    kernel: str
    computed: Tensor | float
    dense: float
    clock: tuple[Any, Any]

    def density(self) -> float:
        return float(self.computed)

    def seconds(self) -> float:
        begin, end = self.clock
        if isinstance(begin, float):
            return end - begin
        end.synchronize()
        return begin.elapsed_time(end) / 1000


@dataclass
class RunLog:
    """What happens in a run, call by call.

    rounding: for each layer whether int8 queries and keys change its output less than what is left out does.
    """

    calls: list[SparseCall] = field(default_factory=list)
    rounding: dict[int, bool] = field(default_factory=dict)
    why_dense: str | None = None
    _told: set[str] = field(default_factory=set)

    def dense(self, why: str) -> None:
        """A call that was to be sparse is not; the first time for this reason a warning says so."""
        if why not in self._told:
            logger.warning("VDiT Attention: sparse attention is %s.", why)
            self._told.add(why)
        self.why_dense = why

    def sum_up(self, report: SparseReport) -> None:
        """Fill in what the calls came to; waits for the device."""
        report.why_dense = self.why_dense
        report.sparse = sum(one.calls for one in self.calls)
        if not report.sparse:
            return
        report.density = sum(one.density() * one.calls for one in self.calls) / report.sparse
        report.seconds = sum(one.seconds() for one in self.calls)
        report.dense_seconds = sum(one.dense for one in self.calls)
        report.kernel = _shares(Counter(one.kernel for one in self.calls))


def _shares(kernels: Counter[str]) -> str:
    (name, _), *others = kernels.most_common()
    return " and ".join([name, *(f"{other} ({count / kernels.total():.0%} of the calls)" for other, count in others)])


def now(device: torch.device) -> Any:
    """A moment of a device, for `SparseCall.clock`; waits for nothing."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event

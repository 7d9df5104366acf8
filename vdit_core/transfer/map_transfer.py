"""What stored and live transfer share: where to act, the count of what was done, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..call import Interceptor, Run, Site
from ..coverage import Place
from ..outcome import Level, Verdict, failed, idle
from .config import ResolvedTransfer, TransferConfig


@dataclass
class TransferReport:
    """How many calls (layer x step x branch) were replaced, of how many that came or should have come. A call is
    replaced when all heads are that it was meant for.

    missed: further calls at noise levels inside a step, where a sampler other than the recorded one looks in; they ran
    with the target's own map. causes: why some were not replaced, or what else is not as it should be. nothing: why
    there was nothing to replace, or None.
    """

    replaced: int
    expected: int
    missed: int = 0
    causes: tuple[str, ...] = ()
    nothing: str | None = None

    @classmethod
    def of_all(cls, reports: Sequence[TransferReport]) -> TransferReport:
        """One report of several runs."""
        return cls(
            replaced=sum(one.replaced for one in reports),
            expected=sum(one.expected for one in reports),
            missed=sum(one.missed for one in reports),
            causes=tuple(dict.fromkeys(cause for one in reports for cause in one.causes)),
            nothing=reports[0].nothing if all(one.nothing for one in reports) else None,
        )

    def __str__(self) -> str:
        missed = f"; {self.missed} more, inside steps, had no recording" if self.missed else ""
        return f"replaced {self.replaced} of {self.expected} calls{missed}"

    def verdict(self) -> Verdict:
        """What a user is told: good only if every call was replaced and the start was the same."""
        if self.nothing is not None:
            return idle(f"nothing to replace: {self.nothing}")
        if not self.replaced:
            return failed("; ".join([str(self), *self.causes]))
        whole = self.replaced == self.expected and not self.missed
        return Verdict(Level.DONE if whole else Level.PARTLY, str(self)).but(*self.causes)


class MapTransfer(Interceptor):
    """Base of both transfers.

    A subclass says what it acts on before the run (`_check`), counts each call that it sees (`_came`) and each that it
    replaces (`_note`).
    """

    def __init__(self, where: TransferConfig | None = None) -> None:
        self.where = where or TransferConfig()
        self._places: ResolvedTransfer | None = None
        self._run: Run | None = None
        self._nothing: str | None = None
        self._replaced: set[Place] = set()
        self._expected: set[Place] = set()
        self._came: set[Place] = set()
        self._missed = 0

    @property
    def report(self) -> TransferReport:
        """The count of the last run, or so far in this one."""
        raise NotImplementedError

    def begin(self, run: Run) -> None:
        for counted in (self._replaced, self._expected, self._came):
            counted.clear()
        self._missed = 0
        self._run = run
        self._places = self._resolve(run)
        self._nothing = self._places.why_none()
        if self._nothing is None:
            planned = set(self._places.planned(run))
            self._nothing = None if planned else "its prompts are not sampled in these steps"
            if planned:
                self._check(run, self._places, planned)

    def wants(self, site: Site) -> bool:
        return self._places is not None and self._places.take(site)

    def end(self, completed: bool) -> None:
        self._places = None

    def _resolve(self, run: Run) -> ResolvedTransfer:
        return self.where.resolve(run)

    def _check(self, run: Run, places: ResolvedTransfer, planned: set[Place]) -> None:
        """Raise what cannot work, and note in `_expected` which of the planned calls shall be replaced."""
        raise NotImplementedError


def put_rows(x: Tensor, rows: list[int], heads: list[int] | None, source: Tensor) -> Tensor:
    """A copy of x with some rows and heads replaced."""
    if heads is None and len(rows) == x.shape[0]:
        return source
    x = x.clone()
    if heads is None:
        x[rows] = source
    else:
        x[torch.tensor(rows)[:, None], torch.tensor(heads)] = source
    return x


def replaced_heads(strengths: Sequence[float]) -> list[int] | None:
    """The heads of a layer with a strength above 0; None for all of them."""
    heads = [head for head, strength in enumerate(strengths) if strength]
    return None if len(heads) == len(strengths) else heads

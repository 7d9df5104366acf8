"""The base of all observers: what they keep of the chosen calls of a run, and what came of it."""

from __future__ import annotations

from typing import Generic, TypeVar

from torch import Tensor

from .call import AttentionCall, Interceptor, Proceed, Run, Site
from .coverage import Place, gaps
from .outcome import Verdict, done, failed, idle
from .selection import ResolvedSelection, Selection

Result = TypeVar("Result")


class RunObserver(Interceptor, Generic[Result]):
    """Watches the chosen calls of a run and changes nothing; a further run starts anew.

    A subclass makes an empty result when a run begins (`_start`), adds to it call by call (`_observe`), and may have
    something to do with it at the end (`_finish`, `_discard`).

    selection: which calls.

    Raises:
        SelectionError: in `begin`, if the selection does not fit the run.
    """

    #: What it does, and to what it belongs, in its messages.
    doing, did, thing = "observe", "observed", "observation"
    #: Whether it looks at what the attention gave; else it looks first, and can stop a call that is of no use.
    needs_output = False

    def __init__(self, selection: Selection | None = None) -> None:
        self.selection = selection or Selection()
        self._chosen: ResolvedSelection | None = None
        self._filling: Result | None = None
        self._result: Result | None = None
        self._came: set[Place] = set()

    @property
    def result(self) -> Result:
        """What came of the last run.

        Raises:
            RuntimeError: if that run has not ended, or did not end well.
        """
        if self._result is None:
            raise RuntimeError(f"There is no {self.thing}: the sampling run has not ended well.")
        return self._result

    def verdict(self) -> Verdict:
        """What came of the last run: good if something came of every step and layer that was chosen."""
        chosen = self._chosen
        if chosen is None or not (chosen.layers and chosen.heads and chosen.steps):
            return idle(f"nothing to {self.doing}: no layer, head or step is chosen")
        if not self._came:
            return failed(f"nothing was {self.did}: no call came")
        return done(f"{self.did} {self._size()}").but(*gaps(self._came, chosen.layers, chosen.steps))

    def begin(self, run: Run) -> None:
        self._result = None
        self._came.clear()
        unfinished, self._filling = self._filling, None
        if unfinished is not None:  # the same observer twice in one chain
            self._discard(unfinished)
        self._chosen = self.selection.resolve(run)
        self._filling = self._start(run, self._chosen)

    def wants(self, site: Site) -> bool:
        return self._filling is not None and self._chosen is not None and self._chosen.take(site)

    def __call__(self, call: AttentionCall, proceed: Proceed) -> Tensor:
        output = proceed(call) if self.needs_output else None
        assert self._chosen is not None
        assert self._filling is not None
        for branch, rows in self._chosen.rows(call.site).items():
            if self._observe(self._filling, call, branch, rows, output):
                self._came.add((call.site.layer, call.site.step, branch))
        return proceed(call) if output is None else output

    def end(self, completed: bool) -> None:
        filled, self._filling = self._filling, None
        if filled is None:
            return
        try:
            if completed:
                self._result = self._finish(filled)
        finally:
            if self._result is None:
                self._discard(filled)

    def _start(self, run: Run, chosen: ResolvedSelection) -> Result:
        """An empty result. Raises what speaks against this run."""
        raise NotImplementedError

    def _observe(
        self, filling: Result, call: AttentionCall, branch: str, rows: list[int], output: Tensor | None
    ) -> bool:
        """Add these rows of a call, all of one branch; whether there was something to add."""
        raise NotImplementedError

    def _finish(self, filled: Result) -> Result | None:
        """The result of a run that ended well; None if there is none."""
        return filled

    def _discard(self, filled: Result) -> None:
        """Leave nothing of a run that broke off."""

    def _size(self) -> str:
        """How much there is, in words."""
        raise NotImplementedError

"""What a run did, as it is told to a user: a level, which the page shows as a colour, and a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum


class Level(str, Enum):
    """How well it went; later ones are worse."""

    IDLE = "idle"  #: there was nothing to do, or it is not done yet (grey)
    DONE = "done"  #: all that was to be done was done (green)
    PARTLY = "partly"  #: some of it was not done, or something about it is not as it should be (amber)
    FAILED = "failed"  #: nothing was done (red)


@dataclass(frozen=True)
class Verdict:
    """A level and the sentence that goes with it."""

    level: Level
    text: str

    def but(self, *caveats: str | None) -> Verdict:
        """The same with more said; a caveat makes a good verdict a partly good one."""
        said = [caveat for caveat in caveats if caveat]
        if not said:
            return self
        level = Level.PARTLY if self.level is Level.DONE else self.level
        return Verdict(level, "; ".join([self.text, *said]))


def idle(text: str) -> Verdict:
    """Nothing to do, or not done yet."""
    return Verdict(Level.IDLE, text)


def done(text: str) -> Verdict:
    """All of it was done."""
    return Verdict(Level.DONE, text)


def failed(text: str) -> Verdict:
    """Nothing was done."""
    return Verdict(Level.FAILED, text)


def joined(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict of several: the worst level, and each one's sentence."""
    worst = max((verdict.level for verdict in verdicts), key=list(Level).index)
    return Verdict(worst, "; ".join(verdict.text for verdict in verdicts))


def of_runs(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict on several runs, which are numbered."""
    if len(verdicts) == 1:
        return verdicts[0]
    return joined([replace(verdict, text=f"run {n}: {verdict.text}") for n, verdict in enumerate(verdicts, start=1)])

"""Where a transfer acts and how strongly: what a user says, and what it means in a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..call import Run, Site
from ..coverage import Place
from ..errors import VDiTError
from ..selection import Indices, LayerMask, choose_branches


class TransferError(VDiTError, ValueError):
    """The source does not fit the run that it is to be transferred into."""


@dataclass(frozen=True)
class TransferConfig:
    """Which calls a transfer edits, and how much: layers with strengths, heads, steps, branches ("all" or a name)."""

    layers: LayerMask = field(default_factory=LayerMask)
    heads: Indices = field(default_factory=Indices)
    steps: Indices = field(default_factory=Indices)
    branches: str = "all"

    def resolve(self, run: Run) -> ResolvedTransfer:
        """The calls of a run that are meant.

        Raises:
            SelectionError: if a layer, head or step is out of range, or a branch is not in the run.
        """
        heads = self.heads.resolve(run.model.heads, "head")
        return ResolvedTransfer(
            strengths=self.layers.resolve(run.model.layers, run.model.kinds) if heads else {},
            heads=None if len(heads) == run.model.heads else list(heads),
            steps=frozenset(self.steps.resolve(run.steps, "step")),
            branches=choose_branches(self.branches, run.branches),
        )


@dataclass(frozen=True)
class ResolvedTransfer:
    """A `TransferConfig`, resolved for one run. heads: None for all."""

    strengths: dict[int, float]
    heads: list[int] | None
    steps: frozenset[int]
    branches: tuple[str, ...]

    def take(self, site: Site) -> bool:
        return site.layer in self.strengths and site.step in self.steps

    def planned(self, run: Run) -> Iterator[Place]:
        """Every call that is meant, as far as it is known beforehand which will come."""
        for step in sorted(self.steps):
            for branch in self.branches:
                if run.comes(step, branch):
                    yield from ((layer, step, branch) for layer in self.strengths)

    def why_none(self) -> str | None:
        """Why no call at all is meant; None if some are."""
        if self.heads == []:
            return "no head is chosen"
        if not self.strengths:
            return "no layer has a strength above 0"
        return None if self.steps else "no step is chosen"

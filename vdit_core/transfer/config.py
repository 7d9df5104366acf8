"""Where a transfer acts and how strongly: what a user says, and what it means in a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..call import Run, Site
from ..coverage import Place
from ..errors import VDiTError
from ..head_mask import HeadMask, head_strengths
from ..selection import Indices, LayerMask, choose_branches


class TransferError(VDiTError, ValueError):
    """The source does not fit the run that it is to be transferred into."""


@dataclass(frozen=True)
class TransferConfig:
    """Which calls a transfer edits, and how much.

    layers: a strength per layer, or per layer and head. heads: which of these heads. steps. branches: "all" or a name.
    """

    layers: LayerMask | HeadMask = field(default_factory=LayerMask)
    heads: Indices = field(default_factory=Indices)
    steps: Indices = field(default_factory=Indices)
    branches: str = "all"

    def resolve(self, run: Run) -> ResolvedTransfer:
        """The calls of a run that are meant.

        Raises:
            SelectionError: if a layer, head or step is out of range, or a branch is not in the run.
        """
        heads = self.heads.resolve(run.model.heads, "head")
        masked = head_strengths(self.layers, run.model)
        strengths = {
            layer: tuple(strength if head in heads else 0.0 for head, strength in enumerate(of_layer))
            for layer, of_layer in masked.items()
        }
        return ResolvedTransfer(
            strengths={layer: of_layer for layer, of_layer in strengths.items() if any(of_layer)},
            steps=frozenset(self.steps.resolve(run.steps, "step")),
            branches=choose_branches(self.branches, run.branches),
            no_strength=_why_no_strength(bool(heads), bool(masked)),
        )


@dataclass(frozen=True)
class ResolvedTransfer:
    """A `TransferConfig`, resolved for one run.

    strengths: of every head, of each layer in which any has one above 0. no_strength: why there is none, if so.
    """

    strengths: dict[int, tuple[float, ...]]
    steps: frozenset[int]
    branches: tuple[str, ...]
    no_strength: str = "no layer has a strength above 0"

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
        if not self.strengths:
            return self.no_strength
        return None if self.steps else "no step is chosen"


def _why_no_strength(heads: bool, masked: bool) -> str:
    """Said where no head of any layer is left. heads: whether any is chosen; masked: whether the mask has any."""
    if not heads:
        return "no head is chosen"
    return "the chosen heads have no strength above 0" if masked else "no layer has a strength above 0"

"""Sink Control: takes sinks away, one way or another, to see whether they matter; or does the same to random others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..attention.blend import blend
from ..call import AttentionCall, Interceptor, ModelSignature, Proceed, Run, Site, TokenGrid
from ..coverage import Place, gaps
from ..errors import VDiTError
from ..head_mask import HeadMask, head_strengths
from ..outcome import Verdict, done, failed, idle
from ..selection import LayerMask
from .bias import masked, to_mass
from .detect import Findings

#: mask: the keys are left out. cap: their mass is brought down to a limit. mean: the head gives its mean output at
#: every token. skip: the head gives nothing.
ACTIONS = ("mask", "cap", "mean", "skip")


class ControlError(VDiTError, ValueError):
    """Sinks that do not fit the run in which they are to be changed."""


@dataclass(frozen=True)
class Targets:
    """What is changed: (layer, head) -> tokens; and of what it was found, to be checked.

    strengths: how much of a head's output is changed, from 0 to 1, where that is less than all of it; 0 for heads that
        have sinks and are left as they are.
    """

    model: ModelSignature
    grid: TokenGrid
    tokens: Mapping[tuple[int, int], tuple[int, ...]]
    strengths: Mapping[tuple[int, int], float] = field(default_factory=dict)

    @classmethod
    def of(cls, findings: Findings, model: ModelSignature) -> Targets:
        """The sinks that were found."""
        found: dict[tuple[int, int], tuple[int, ...]] = {}
        for sink in findings.sinks:
            found[sink.layer, sink.head] = (*found.get((sink.layer, sink.head), ()), sink.token)
        return cls(model, findings.grid, found)

    def within(self, mask: LayerMask | HeadMask) -> Targets:
        """Those in heads to which a mask gives a strength above 0, changed that much.

        Raises:
            SelectionError: if the mask does not fit the model.
        """
        masked = head_strengths(mask, self.model)
        strengths = dict.fromkeys(self.strengths, 0.0)
        for layer, head in self.tokens:
            of_head = masked[layer][head] if layer in masked else 0.0
            strengths[layer, head] = of_head * self.strengths.get((layer, head), 1.0)
        tokens = {head: found for head, found in self.tokens.items() if strengths[head]}
        return replace(self, tokens=tokens, strengths=strengths)

    def random_tokens(self, seed: int = 0) -> Targets:
        """A control: in the same heads as many other tokens, at random."""
        generator = torch.Generator().manual_seed(seed)
        found = {}
        for head, tokens in self.tokens.items():
            order = torch.randperm(self.grid.tokens, generator=generator).tolist()
            found[head] = tuple([token for token in order if token not in tokens][: len(tokens)])
        return replace(self, tokens=found)

    def random_heads(self, seed: int = 0) -> Targets:
        """A control: as many other heads, at random out of those without a sink, as far as there are so many."""
        generator = torch.Generator().manual_seed(seed)
        others = [
            (layer, head)
            for layer in range(self.model.layers)
            for head in range(self.model.heads)
            if (layer, head) not in self.tokens and (layer, head) not in self.strengths
        ]
        order = torch.randperm(len(others), generator=generator).tolist()
        chosen = sorted(others[i] for i in order[: len(self.tokens)])
        instead = dict(zip(chosen, self.tokens, strict=False))
        return replace(
            self,
            tokens={other: self.tokens[head] for other, head in instead.items()},
            strengths={other: self.strengths.get(head, 1.0) for other, head in instead.items()},
        )

    def __len__(self) -> int:
        return len(self.tokens)


class SinkControl(Interceptor):
    """Changes what sinks do.

    Args:
        targets: which heads and keys. action: see `ACTIONS`. cap: the limit of a key's mass, a share of all attention.

    Raises:
        ValueError: for an action that there is not, or a cap outside of 0..1. In `begin`: ControlError, if the targets
            are of another model or grid, naming both, or not on them.
    """

    def __init__(self, targets: Targets, action: str = "mask", cap: float = 0.01) -> None:
        if action not in ACTIONS:
            raise ValueError(f"There is no action {action!r}; the actions are {', '.join(ACTIONS)}.")
        if not 0 < cap < 1:
            raise ValueError(f"A key's mass can be capped at a share between 0 and 1, not {cap}.")
        self.targets, self.action, self.cap = targets, action, cap
        self.changed = 0
        self._came: set[Place] = set()
        self._steps = 0

    def verdict(self) -> Verdict:
        """What came of the last run: good if every layer with sinks was changed in every step."""
        if not len(self.targets):
            return idle("no sinks to change")
        if not self.changed:
            return failed("nothing was changed: no call came")
        keys = sum(map(len, self.targets.tokens.values()))
        text = f"changed {self.changed} calls: {len(self.targets)} heads" + (f", {keys} keys" if keys else "")
        return done(text).but(*gaps(self._came, {layer for layer, _ in self.targets.tokens}, range(self._steps)))

    def begin(self, run: Run) -> None:
        for name, found, here in (
            ("a model", self.targets.model, run.model),
            ("a grid", self.targets.grid, run.grid),
        ):
            if found != here:
                raise ControlError(
                    f"The sinks were found in {name} of {found}; this run has {here}. Inspect this model at this size."
                )
        for (layer, head), tokens in self.targets.tokens.items():
            if not (0 <= layer < run.model.layers and 0 <= head < run.model.heads):
                raise ControlError(f"Head {head} of layer {layer} does not exist: the model has {run.model}.")
            if beyond := [token for token in tokens if not 0 <= token < run.grid.tokens]:
                raise ControlError(
                    f"Token {beyond[0]} does not exist: the grid has {run.grid}, 0 to {run.grid.tokens - 1}."
                )
        self.changed, self._steps = 0, run.steps
        self._came.clear()

    def wants(self, site: Site) -> bool:
        return any(layer == site.layer for layer, _ in self.targets.tokens)

    def __call__(self, call: AttentionCall, proceed: Proceed) -> Tensor:
        chosen = {head: keys for (layer, head), keys in self.targets.tokens.items() if layer == call.site.layer}
        branches = {row.branch for row in call.site.rows}
        self.changed += len(branches)
        self._came |= {(call.site.layer, call.site.step, branch) for branch in branches}
        given = self.targets.strengths
        strengths = [[given.get((call.site.layer, head), 1.0) for head in range(call.q.shape[1])]] * len(call.q)
        if self.action in ("mask", "cap"):
            if self.action == "mask":
                bias = masked(call.q.shape[1], call.q.shape[2], chosen, call.q.device)
            else:
                wanted = {head: dict.fromkeys(keys, self.cap) for head, keys in chosen.items()}
                bias = to_mass(call.q, call.k, wanted, call.bias, only_down=True)
            biased = replace(call, bias=bias if call.bias is None else call.bias + bias)
            if not any(0 < strength < 1 for strength in strengths[0]):
                return proceed(biased)
            own = proceed(call)
            return blend(own, proceed(biased), strengths)
        own = proceed(call)
        output = own.clone()
        grid = call.of_grid(output)
        for head in chosen:
            grid[:, head] = grid[:, head].mean(1, keepdim=True) if self.action == "mean" else 0
        return blend(own, output, strengths)

"""Finds the head groups that serve a goal best: greedy, forward.

It begins with the plain target, tries every group alone, takes the one that improves the trade most, tries the others
together with it, and so on. It stops when nothing improves the trade by `least_gain`, or at a limit. Each round is a
sweep of head groups, so its videos are sampled, kept and reused as those of any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..head_mask import HeadMask
from .checkpoint import SweepFolder
from .found import Found, Taken, Trial
from .goal import GoalError, Judge, Measures, SearchConfig
from .groups import GROUPS, HeadGroup, union
from .plan import AT_ONCE, PLAIN, ROWS, SOURCE, Sweep

#: Samples one sweep: as `run.run` takes them, the sweep, its folder and the videos that are there already -> latents.
RunSweep = Callable[[Sweep, SweepFolder | None, dict[int, Tensor]], Tensor]

#: The groups that fit the first batch, with the source and the plain target; a gain of nothing but rounding.
_FIRST, _ROUNDING = AT_ONCE - ROWS, 1e-9


def search(
    sweep: Sweep,
    config: SearchConfig,
    run_sweep: RunSweep,
    decode: Callable[[Tensor], Tensor],
    measures: Measures,
    folder: Path | None = None,
    on_round: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Found:
    """The best union of a sweep's head groups that a greedy search finds.

    Args:
        sweep: of head groups: what may be added.
        run_sweep: samples the videos of a sweep that are not there yet.
        decode: a video of latents of shape (1, ...): float in [0, 1], (1, 3, frames, height, width).
        folder: where finished videos are kept, by their masks; what it holds already is not sampled again.
        on_round: is told the number of each round, from 1, and how many groups it tries.
        say: hears of damaged files.

    Raises:
        FolderError: if the folder holds another sweep.
        GoalError: if there is no such measure, or source and plain target hardly differ in one.
        ValueError: if the sweep is of layers.
    """
    config.goal.check(measures)
    if not sweep.of_heads:
        raise ValueError(f"A goal is searched among head groups; the sweep {sweep.mode!r} is of layers.")
    return _Search(sweep, config, run_sweep, decode, measures, folder, say).run(on_round)


def layer_groups(sweep: Sweep, heads: int) -> Sweep:
    """A sweep of "each" layer as one of head groups, a group a layer, for a model of so many heads: what is searched.

    A sweep of head groups is given back as it is.

    Raises:
        GoalError: for the other sweeps of layers: their rows are no parts of one another.
    """
    if sweep.of_heads:
        return sweep
    if sweep.mode != "each":
        raise GoalError(
            f"The rows of the mode {sweep.mode!r} overlap, so a search cannot add one to another. "
            "Use the mode each, or one of head groups."
        )
    masks = (
        HeadMask.of({(layer, head): 1.0 for head in range(heads)}, sweep.layers, heads) for layer in range(sweep.layers)
    )
    groups = tuple(HeadGroup(f"layer {layer}", mask) for layer, mask in enumerate(masks))
    return replace(sweep, mode=GROUPS, groups=groups)


class _Search:
    """The state of one search."""

    def __init__(
        self,
        sweep: Sweep,
        config: SearchConfig,
        run_sweep: RunSweep,
        decode: Callable[[Tensor], Tensor],
        measures: Measures,
        folder: Path | None,
        say: Callable[[str], None] | None,
    ) -> None:
        self.sweep, self.config, self.run_sweep = sweep, config, run_sweep
        self.decode, self.measures, self.folder, self.say = decode, measures, folder, say
        self.ends: dict[int, Tensor] = {}  # the latents of the source and of the plain target
        self.judge: Judge | None = None
        self.trials: dict[str, Trial] = {}  # by mask
        self.best: tuple[Trial, Tensor] | None = None  # of this round, and its clip

    def run(self, on_round: Callable[[int, int], None] | None) -> Found:
        left = list(self.sweep.groups)
        made_for = left[0].mask
        mask = HeadMask("none", made_for.layers, made_for.heads)
        path: list[Taken] = []
        clips: list[Tensor] = []
        trade = 1 - self.config.goal.weight
        while left and len(path) < self.config.most_groups:
            number, some = len(path) + 1, left[: self.config.candidates] if path else left
            together = [HeadGroup(group.label, union([mask, group.mask])) for group in some]
            if on_round:
                on_round(number, len(together))
            self.best = None
            if self.judge is None:  # a goal that says nothing of these videos is found out after one batch
                self._try(number, together[:_FIRST])
                self._try(number, together[_FIRST:])
            else:
                self._try(number, together)
            assert self.best is not None
            best, clip = self.best
            if not best.has.trade - trade >= max(self.config.least_gain, _ROUNDING):
                return self._found(mask, path, clips, f"no group improves the trade by {self.config.least_gain:g}")
            gains = {a.name: self.trials[b.mask.text].has.trade for a, b in zip(some, together, strict=True)}
            path.append(Taken(best, best.has.trade - trade))
            clips.append(clip)
            mask, trade = best.mask, best.has.trade
            left.sort(key=lambda group: -gains.get(group.name, -math.inf))  # stable: what was not tried keeps its order
            left = [group for group in left if union([mask, group.mask]) != mask]
        stopped = f"the limit of {self.config.most_groups} groups is reached" if left else "every group is in"
        return self._found(mask, path, clips, stopped)

    def _try(self, number: int, groups: Sequence[HeadGroup]) -> None:
        """Sample the target under each group's mask and judge it."""
        different = tuple({group.name: group for group in reversed(groups)}.values())[::-1]
        if not different:
            return
        sweep = replace(self.sweep, mode=GROUPS, groups=different)
        folder = SweepFolder(self.folder, sweep) if self.folder else None
        done = (folder.load(self.say) if folder else {}) | self.ends
        latents = self.run_sweep(sweep, folder, done)
        if self.judge is None:
            self.ends = {n: latents[n] for n in (SOURCE, PLAIN)}
            source, plain = (self.decode(latents[n : n + 1]) for n in (SOURCE, PLAIN))
            self.judge = Judge(self.config.goal, self.measures, source, plain)
            self.clips = [source, plain]
        for group, one in zip(different, latents[ROWS:].split(1), strict=True):
            clip = self.decode(one)
            trial = Trial(number, group.label, group.mask, self.judge(clip))
            self.trials.setdefault(group.mask.text, trial)
            if self.best is None or trial.has.trade > self.best[0].has.trade:
                self.best = trial, clip

    def _found(self, mask: HeadMask, path: list[Taken], clips: list[Tensor], stopped: str) -> Found:
        assert self.judge is not None
        plain, trials = self.judge.plain(), tuple(self.trials.values())
        return Found(
            self.sweep, self.config, plain, tuple(path), trials, mask, stopped, torch.cat([*self.clips, *clips])
        )

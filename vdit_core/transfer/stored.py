"""Stored transfer: the source's maps come from a recording."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..attention.blend import blend
from ..call import AttentionCall, Proceed, Run, Site
from ..coverage import Place, numbered, prompt_name
from ..differences import Made, explain, mismatches
from ..recording.store import SAME_LEVEL, AttentionStore, Evaluation, Key
from ..recording.store.prefetch import Prefetch
from .config import ResolvedTransfer, TransferConfig, TransferError
from .map_transfer import MapTransfer, TransferReport, put_rows, replaced_heads


class Transfer(MapTransfer):
    """Puts the maps of a store in the place of the target's own.

    A target's call takes the map that was recorded of the same layer and branch at the same noise level. One recorded
    sample serves every sample of the batch; several are taken row by row.

    Args:
        store: the source.
        where: layers, heads, steps and branches.
        gap: how far apart the noise levels may be. The default admits rounding only; a wider gap lets a recording of
            other steps serve, each call taking the nearest.

    Raises:
        TransferError: if the gap is no distance. In `begin`, before anything is computed: if model, size, batch, heads
            or the steps' noise levels do not fit, naming both sides, or if nothing of what is meant was recorded.
    """

    def __init__(self, store: AttentionStore, where: TransferConfig | None = None, gap: float = SAME_LEVEL) -> None:
        super().__init__(where)
        if not gap >= 0:
            raise TransferError(f"The gap is {gap}; it is a distance of noise levels, 0 or more.")
        self.store = store
        self.gap = gap
        self._mismatches: list[str] = []
        self._prefetch: dict[tuple[torch.device, torch.dtype], Prefetch] = {}  # a host may compute on several GPUs

    def end(self, completed: bool) -> None:
        super().end(completed)
        while self._prefetch:
            self._prefetch.popitem()[1].close()

    @property
    def report(self) -> TransferReport:
        if self._nothing is not None:
            return TransferReport(0, 0, nothing=self._nothing)
        expected = self._expected | self._came
        causes = [*self._why(self._came - self._expected), *self._mismatches]
        if absent := self._expected - self._came:
            lost = {layer for layer, _, _ in self._expected} - {layer for layer, _, _ in self._came}
            if lost and self._came:
                causes.insert(0, f"{numbered('layer', lost)} did not come: something replaces or skips them")
                absent = {place for place in absent if place[0] not in lost}
        if absent:
            steps = numbered("step", {step for _, step, _ in absent})
            causes.insert(
                0, f"{len(absent)} calls did not come, in {steps}: something leaves steps out, as EasyCache does"
            )
        return TransferReport(len(self._replaced), len(expected), self._missed, tuple(causes))

    def _check(self, run: Run, places: ResolvedTransfer, planned: set[Place]) -> None:
        source = self.store.header
        if source.model != run.model:
            raise TransferError(f"The maps were recorded from a model of {source.model}; this one has {run.model}.")
        if source.kind and run.kind and source.kind != run.kind:
            raise TransferError(f"The maps were recorded from a model of kind {source.kind}; this one is {run.kind}.")
        if not len(self.store):
            raise TransferError(
                "This recording holds no queries and keys, so there are no maps to transfer. In Record Attention set "
                "`what` to 'queries and keys' or 'both', and choose at least one layer, head and step."
            )
        if source.grid != run.grid:
            raise TransferError(self._other_grid(run))
        if source.samples not in (1, run.samples):
            raise TransferError(
                f"The store holds {source.samples} samples, this run has {run.samples}: "
                "record one sample, or as many as the target has."
            )
        used = {head for of_layer in places.strengths.values() for head, strength in enumerate(of_layer) if strength}
        if missing := sorted(used - set(source.heads)):
            raise TransferError(f"Heads {missing} were not recorded; the store holds heads {list(source.heads)}.")
        found = {step: self._find_step(run, step) for step in {step for _, step, _ in planned}}
        self._expected |= {
            (layer, step, branch)
            for layer, step, branch in planned
            if (evaluation := found[step]) is not None and Key(evaluation, branch, layer) in self.store
        }
        if not self._expected:
            raise TransferError(
                f"Nothing that this transfer is to replace was recorded: {'; '.join(self._why(planned))}. "
                f"The store holds {self.store.summary()}."
            )
        self._mismatches = mismatches(source, run)

    def _find_step(self, run: Run, step: int) -> Evaluation | None:
        """What was recorded of a step; None if nothing was, though the source has such a step.

        Raises:
            TransferError: if it has none: then the two runs have other settings.
        """
        sigma, source = run.sigmas[step], self.store.header
        found = self.store.find(sigma, gap=self.gap)
        if found is not None:
            return found
        between = [e for e in self.store.evaluations if min(abs(e.sigma - s) for s in source.sigmas) > SAME_LEVEL]
        if len(between) > len(self.store.evaluations) // 2:
            raise TransferError(
                "The recorded sampler hardly evaluates its steps' own noise levels, as dpm_fast and dpm_adaptive do: "
                "sample source and target with another one."
            )
        if min(abs(sigma - level) for level in source.sigmas) > max(self.gap, SAME_LEVEL):
            raise TransferError(
                f"Step {step} of the target has no counterpart in the recorded run: the settings differ. "
                f"{explain(source, run)} {_remedy(source, run)}"
            )
        return None

    def _other_grid(self, run: Run) -> str:
        source = self.store.header
        if replace(source.grid, prefix=0, suffix=0) == replace(run.grid, prefix=0, suffix=0):
            remedy = "Give source and target the same reference pictures."
        else:
            remedy = "Use the source's width, height and length."
        return f"The target has another size than the source. {explain(source, run)} {remedy}"

    def _why(self, places: set[Place]) -> list[str]:
        """Why these calls have no recording, half a sentence for each cause."""
        assert self._run is not None
        run, store, causes = self._run, self.store, []
        if layers := {layer for layer, _, _ in places} - set(store.layers):
            causes.append(f"{numbered('layer', layers)} {_was(layers)} not recorded")
        rest = {place for place in places if place[0] not in layers}
        if steps := {step for _, step, _ in rest if store.find(run.sigmas[step], gap=self.gap) is None}:
            causes.append(f"{numbered('step', steps)} {_was(steps)} not recorded")
        rest = {place for place in rest if place[1] not in steps}
        for branch in sorted({branch for _, _, branch in rest}):
            if branch not in store.branches:
                source, target = store.header.made.cfg, run.made.cfg
                cfg = (
                    f" (source: cfg {source:g}, target: cfg {target:g})"
                    if source != target and source and target
                    else ""
                )
                causes.append(f"the {prompt_name(branch)} was not recorded{cfg}")
            else:
                missing = {step for _, step, b in rest if b == branch}
                causes.append(
                    f"the source's run did not compute the {prompt_name(branch)} in {numbered('step', missing)}"
                )
        return causes

    def __call__(self, call: AttentionCall, proceed: Proceed) -> Tensor:
        assert self._places is not None
        site, places = call.site, self._places
        present = [branch for branch in places.branches if any(row.branch == branch for row in site.rows)]
        if not present:
            return proceed(call)
        evaluation = self.store.find(site.sigma, site.visit, self.gap)
        recorded = []
        if evaluation is not None:
            recorded = [branch for branch in present if Key(evaluation, branch, site.layer) in self.store]
        self._count(site, present, recorded)
        if evaluation is None or not recorded:
            return proceed(call)
        q, k = call.q, call.k
        ahead = self._prefetch.get((q.device, q.dtype)) or Prefetch(self.store, q.device, q.dtype)
        ahead = self._prefetch.setdefault((q.device, q.dtype), ahead)
        sources = {branch: ahead.get(Key(evaluation, branch, site.layer)) for branch in recorded}
        ahead.expect(self._next(site, evaluation, recorded))
        strengths = places.strengths[site.layer]
        heads = replaced_heads(strengths)
        for branch, source in sources.items():
            rows = [i for i, row in enumerate(site.rows) if row.branch == branch]
            samples = [site.rows[i].sample for i in rows]
            source_q, source_k = (self._for_rows(x, samples, heads) for x in source)
            q, k = put_rows(q, rows, heads, source_q), put_rows(k, rows, heads, source_k)
            self._replaced.add((site.layer, site.step, branch))
        edited, different = replace(call, q=q, k=k), {strength for strength in strengths if strength}
        if different == {1}:
            return proceed(edited)
        own, output = proceed(call), proceed(edited)
        if len(different) == 1:  # what is not replaced is the same in both
            return torch.lerp(own, output, different.pop())
        return blend(own, output, [strengths] * len(output))

    def _count(self, site: Site, present: list[str], recorded: list[str]) -> None:
        """Calls at a step's own noise level count one by one; those between steps only if they have no recording."""
        own = site.visit == 0 and abs(site.sigma - site.run.sigmas[site.step]) <= SAME_LEVEL
        counted = present if own else recorded
        self._came |= {(site.layer, site.step, branch) for branch in counted}
        self._missed += not counted

    def _next(self, site: Site, evaluation: Evaluation, present: list[str]) -> list[Key]:
        """What will most likely be asked for after this call: the next layer; behind the last one, the first layer for
        branches that are still to come in this step, or in the next step."""
        assert self._places is not None
        layers, branches = sorted(self._places.strengths), present
        place = layers.index(site.layer) + 1
        if place == len(layers):
            place, others = 0, [branch for branch in self._places.branches if branch not in present]
            waiting = [branch for branch in others if (site.layer, site.step, branch) not in self._replaced]
            branches = waiting or others or present
            if not waiting:
                following = site.run.sigmas[site.step + 1 : site.step + 2]
                found = self.store.find(following[0], gap=self.gap) if following else None
                if found is None or site.step + 1 not in self._places.steps:
                    return []
                evaluation = found
        return [key for key in (Key(evaluation, branch, layers[place]) for branch in branches) if key in self.store]

    def _for_rows(self, recorded: Tensor, samples: list[int], heads: list[int] | None) -> Tensor:
        """Recorded (samples, heads, tokens, head_dim) for these samples of the target; copies only what it must."""
        if heads is not None:
            recorded = recorded[:, [self.store.header.heads.index(h) for h in heads]]
        if len(recorded) == 1:
            return recorded.expand(len(samples), -1, -1, -1)
        return recorded if samples == list(range(len(recorded))) else recorded[samples]


def _was(several: set[int]) -> str:
    return "were" if len(several) > 1 else "was"


def _remedy(source: Made, target: Made) -> str:
    """What to do about runs of other steps."""
    if source.sigmas[0] < 0.99 or target.sigmas[0] < 0.99 or len(source.sigmas) != len(target.sigmas):
        parts = source.sigmas[0] != target.sigmas[0]
    else:
        parts = False
    if parts:
        return (
            "They are different parts of the noise schedule. If two samplers share the work, give each its own Record "
            "Attention and its own transfer; else use the same steps, scheduler, shift and denoise."
        )
    return (
        "Use the same steps, scheduler, shift and denoise on both sides, narrow the transfer's steps, or widen its gap."
    )

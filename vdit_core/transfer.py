"""Attention-map transfer: the source's map, the target's values (section "Structure" of arXiv 2504.10317).

    output = strength * softmax(Q_source K_source^T / sqrt(d)) V_target + (1 - strength) * the target's own output

`Transfer` takes the source from a store, `LiveTransfer` from row 0 of the same batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import torch
from torch import Tensor

from .call import AttentionCall, Interceptor, Proceed, Run, SharedMaps, Site
from .selection import Indices, LayerMask, choose_branches
from .store import SAME_LEVEL, AttentionStore, Evaluation, Key
from .store.ahead import ReadAhead


class TransferError(ValueError):
    """The source does not fit the run that it is to be transferred into."""


@dataclass(frozen=True)
class Where:
    """Which calls a transfer edits, and how much: layers with strengths, heads, steps, branches ("all" or a name)."""

    layers: LayerMask = field(default_factory=LayerMask)
    heads: Indices = field(default_factory=Indices)
    steps: Indices = field(default_factory=Indices)
    branches: str = "all"

    def resolve(self, run: Run) -> _Places:
        """The calls of a run that are meant.

        Raises:
            SelectionError: if a layer, head or step is out of range, or a branch is not in the run.
        """
        heads = self.heads.resolve(run.model.heads, "head")
        return _Places(
            strengths=self.layers.resolve(run.model.layers) if heads else {},
            heads=None if len(heads) == run.model.heads else list(heads),
            steps=frozenset(self.steps.resolve(run.steps, "step")),
            branches=choose_branches(self.branches, run.branches),
        )


@dataclass(frozen=True)
class _Places:
    """A `Where`, resolved for one run. heads: None for all."""

    strengths: dict[int, float]
    heads: list[int] | None
    steps: frozenset[int]
    branches: tuple[str, ...]

    def take(self, site: Site) -> bool:
        return site.layer in self.strengths and site.step in self.steps

    def count(self, run: Run) -> int:
        passes = sum(run.comes(step, branch) for step in self.steps for branch in self.branches)
        return len(self.strengths) * passes


@dataclass
class Report:
    """How many calls (layer x step x branch) were replaced, of how many it should have been.

    missed: further calls at noise levels inside a step, where a sampler other than the recorded one looks in; they ran
    with the target's own map.
    """

    replaced: int
    expected: int
    missed: int = 0

    def __str__(self) -> str:
        missed = f"; {self.missed} more, inside steps, had no recording" if self.missed else ""
        return f"replaced {self.replaced} of {self.expected} calls{missed}"


class MapTransfer(Interceptor):
    """What stored and live transfer share: where to act, the blend, and the count."""

    def __init__(self, where: Where | None = None) -> None:
        self.where = where or Where()
        self._places: _Places | None = None
        self._replaced: set[tuple[int, int, str]] = set()
        self._expected = self._missed = 0

    @property
    def report(self) -> Report:
        """The count of the last run, or so far in this one."""
        return Report(len(self._replaced), self._expected, self._missed)

    def begin(self, run: Run) -> None:
        self._replaced.clear()
        self._missed = 0
        self._places = self._resolve(run)
        self._expected = self._places.count(run)
        if self._expected:
            self._check(run, self._places)

    def wants(self, site: Site) -> bool:
        return self._places is not None and self._places.take(site)

    def end(self, completed: bool) -> None:
        self._places = None

    def _resolve(self, run: Run) -> _Places:
        return self.where.resolve(run)

    def _check(self, run: Run, places: _Places) -> None:
        raise NotImplementedError

    def _note(self, site: Site, branch: str) -> None:
        self._replaced.add((site.layer, site.step, branch))


class Transfer(MapTransfer):
    """Puts the maps of a store in the place of the target's own.

    A target's call takes the map that was recorded of the same layer and branch at the same noise level. One recorded
    sample serves every sample of the batch; several are taken row by row.

    Args:
        store: the source.
        where: layers, heads, steps and branches.
        gap: how far apart the noise levels may be. The default admits rounding only; a wider gap lets a recording of
            other steps serve, each call taking the nearest.

    Raises (in `begin`, before anything is computed):
        TransferError: if model, grid, batch, heads, layers, steps or branches do not fit; it names both sides.
    """

    def __init__(self, store: AttentionStore, where: Where | None = None, gap: float = SAME_LEVEL) -> None:
        super().__init__(where)
        self.store = store
        self.gap = gap
        self._ahead: dict[tuple[torch.device, torch.dtype], ReadAhead] = {}  # a host may compute on several GPUs

    def end(self, completed: bool) -> None:
        super().end(completed)
        while self._ahead:
            self._ahead.popitem()[1].close()

    def _check(self, run: Run, places: _Places) -> None:
        source = self.store.header
        if source.model != run.model:
            raise TransferError(f"The maps were recorded from a model of {source.model}; this one has {run.model}.")
        if source.kind and run.kind and source.kind != run.kind:
            raise TransferError(f"The maps were recorded from a model of kind {source.kind}; this one is {run.kind}.")
        if source.grid != run.grid:
            raise TransferError(
                f"The maps were recorded on a grid of {source.grid}; this run has {run.grid}. "
                "Record the source at the target's size and length."
            )
        if source.samples not in (1, run.samples):
            raise TransferError(
                f"The store holds {source.samples} samples, this run has {run.samples}: "
                "record one sample, or as many as the target has."
            )
        if missing := sorted(set(places.heads or range(run.model.heads)) - set(source.heads)):
            raise TransferError(f"Heads {missing} were not recorded; the store holds heads {list(source.heads)}.")
        for step in sorted(places.steps):
            if branches := [branch for branch in places.branches if run.comes(step, branch)]:
                self._check_step(run.sigmas[step], step, branches, places)

    def _check_step(self, sigma: float, step: int, branches: list[str], places: _Places) -> None:
        found = self.store.find(sigma, gap=self.gap)
        if found is None:
            levels = ", ".join(f"{e.sigma:.4f}" for e in self.store.evaluations)
            raise TransferError(
                f"Step {step} is at noise level {sigma:.4f}, which was not recorded (recorded: {levels or 'none'}). "
                f"{self._advice()}"
            )
        for branch in branches:
            for layer in places.strengths:
                if Key(found, branch, layer) not in self.store:
                    layers = [layer for layer in self.store.layers if Key(found, branch, layer) in self.store]
                    raise TransferError(
                        f"Layer {layer} of branch {branch!r} at step {step} was not recorded; layers {layers} were. "
                        f"The store holds branches {list(self.store.branches)}."
                    )

    def _advice(self) -> str:
        """What to do about a step that was not recorded."""
        levels = self.store.header.sigmas
        between = [e for e in self.store.evaluations if min(abs(e.sigma - level) for level in levels) > SAME_LEVEL]
        if len(between) > len(self.store.evaluations) // 2:
            return (
                "The recorded sampler hardly looks in at its steps' own levels, as dpm_fast and dpm_adaptive do: "
                "sample source and target with another one."
            )
        return (
            "Record these steps with the target's sampler settings and without nodes that leave steps out (EasyCache), "
            "narrow the transfer's steps, or widen its gap."
        )

    def __call__(self, call: AttentionCall, proceed: Proceed) -> Tensor:
        assert self._places is not None
        site, places = call.site, self._places
        present = [branch for branch in places.branches if any(row.branch == branch for row in site.rows)]
        if not present:
            return proceed(call)
        evaluation = self.store.find(site.sigma, site.visit, self.gap)
        if evaluation is None:
            self._missed += 1
            return proceed(call)
        q, k = call.q, call.k
        ahead = self._ahead.get((q.device, q.dtype)) or ReadAhead(self.store, q.device, q.dtype)
        ahead = self._ahead.setdefault((q.device, q.dtype), ahead)
        sources = {branch: ahead.get(Key(evaluation, branch, site.layer)) for branch in present}
        ahead.expect(self._next(site, evaluation, present))
        for branch, source in sources.items():
            rows = [i for i, row in enumerate(site.rows) if row.branch == branch]
            samples = [site.rows[i].sample for i in rows]
            source_q, source_k = (self._for_rows(x, samples, places.heads) for x in source)
            q, k = _place(q, rows, places.heads, source_q), _place(k, rows, places.heads, source_k)
            self._note(site, branch)
        strength, edited = places.strengths[site.layer], replace(call, q=q, k=k)
        if strength == 1:
            return proceed(edited)
        # Mixing outputs mixes maps: the values are the same. What is not replaced is the same in both.
        return torch.lerp(proceed(call), proceed(edited), strength)

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


def _place(x: Tensor, rows: list[int], heads: list[int] | None, source: Tensor) -> Tensor:
    """A copy of x with some rows and heads replaced."""
    if heads is None and len(rows) == x.shape[0]:
        return source
    x = x.clone()
    if heads is None:
        x[rows] = source
    else:
        x[torch.tensor(rows)[:, None], torch.tensor(heads)] = source
    return x


class LiveTransfer(MapTransfer):
    """Source and targets in one batch: in each branch the map of sample 0 serves the other samples.

    Nothing is stored. Where all heads are replaced, the softmax is computed once for all rows' values. All samples need
    the same noise, at the start and in every step that adds some. The ComfyUI host sees to the latter; in diffusers
    give a stochastic scheduler a generator for each sample, all seeded alike.

    Args:
        where: layers, heads, steps and branches.
        masks: a mask for each target, instead of `where.layers`: sample n takes the source's map in the layers of
            masks[n - 1] ("none": it runs as it is). So one run samples a target under many masks.

    Raises (in `begin`):
        TransferError: if the batch holds the source alone, if its samples start from other noise than the source, or if
            there are not as many masks as targets.
    """

    any_grid = True
    one_noise = True

    def __init__(self, where: Where | None = None, masks: Sequence[LayerMask] | None = None) -> None:
        super().__init__(where)
        self.masks = None if masks is None else tuple(masks)
        self._strengths: list[dict[int, float]] = []  # of each sample, by layer

    def _resolve(self, run: Run) -> _Places:
        places, targets = self.where.resolve(run), run.samples - 1
        if self.masks is None:
            self._strengths = [{}] + [places.strengths] * targets
            return places
        if len(self.masks) != targets:
            raise TransferError(
                f"There are {len(self.masks)} layer masks for {targets} targets (a batch of {run.samples}, "
                "the source first): each target needs one."
            )
        of_targets = [replace(self.where, layers=mask).resolve(run).strengths for mask in self.masks]
        self._strengths = [{}, *of_targets]
        anywhere = {layer: strength for strengths in of_targets for layer, strength in strengths.items()}
        return replace(places, strengths=anywhere)

    def _check(self, run: Run, places: _Places) -> None:
        if run.samples < 2:
            raise TransferError(
                "Live transfer needs a batch of the source and at least one target; it holds one sample."
            )
        if not run.one_noise:
            raise TransferError(
                "The targets start from other noise than the source. Start all of the batch from the same noise: in "
                "ComfyUI with Live Transfer's own latent, in diffusers with latents=noise.expand(...)."
            )

    def maps_from(self, site: Site) -> tuple[int, ...] | None:
        assert self._places is not None
        if self._places.heads is not None:
            return None
        sources = {row.branch: i for i, row in enumerate(site.rows) if row.sample == 0}
        strengths = [self._strengths[row.sample].get(site.layer, 0.0) for row in site.rows]
        taken = [
            bool(strength) and row.branch in sources and row.branch in self._places.branches
            for row, strength in zip(site.rows, strengths, strict=True)
        ]
        if not any(taken) or any(0 < strength < 1 for strength in strengths):
            return None
        return tuple(
            sources[row.branch] if take else i for i, (row, take) in enumerate(zip(site.rows, taken, strict=True))
        )

    def __call__(self, call: AttentionCall, proceed: Proceed) -> Tensor:
        parts = [self._edit(part, proceed) for part in _by_branch(call)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, out=torch.empty_like(call.v))

    def _edit(self, call: AttentionCall, proceed: Proceed) -> Tensor:
        """The output of a call of one branch."""
        assert self._places is not None
        rows, branch = call.site.rows, call.site.rows[0].branch
        source = next((i for i, row in enumerate(rows) if row.sample == 0), None)
        strengths = [self._strengths[row.sample].get(call.site.layer, 0.0) for row in rows]
        if source is None or branch not in self._places.branches or not any(strengths):
            return proceed(call)
        self._note(call.site, branch)
        takers = [i for i, strength in enumerate(strengths) if strength]
        edited = _with_map_of(call, source, takers, self._places.heads)
        blends = {strength for strength in strengths if 0 < strength < 1}
        if not blends:
            return proceed(edited)
        own, output = proceed(call), proceed(edited)
        for strength in blends:  # one at a time: a tensor of strengths would be rounded to the values' dtype
            alike = [i for i in takers if strengths[i] == strength]
            output[alike] = torch.lerp(own[alike], output[alike], strength)
        return output


def _by_branch(call: AttentionCall) -> list[AttentionCall]:
    """A call as one for each branch; the rows of a branch follow one another."""
    site, parts, end = call.site, [], 0
    counts = [len(tuple(rows)) for _, rows in groupby(site.rows, lambda row: row.branch)]
    if len(counts) == 1:
        return [call]
    for count in counts:
        begin, end = end, end + count
        q, k, v = (x[begin:end] for x in (call.q, call.k, call.v))
        parts.append(replace(call, site=replace(site, rows=site.rows[begin:end]), q=q, k=k, v=v))
    return parts


def _with_map_of(call: AttentionCall, source: int, takers: list[int], heads: list[int] | None) -> AttentionCall:
    """A call in which some rows have the source's queries and keys; where these are all of theirs, they share a map."""
    if heads is not None:
        q, k = (_place(x, takers, heads, x[source, heads]) for x in (call.q, call.k))
        return replace(call, q=q, k=k)
    together = {source, *takers}
    if len(together) == len(call.q):
        q, k = (x[source : source + 1].expand_as(x) for x in (call.q, call.k))
    else:
        q, k = (_place(x, takers, None, x[source]) for x in (call.q, call.k))
    first = tuple(min(together) if row in together else row for row in range(len(q)))
    return replace(call, q=q, k=k, shared=SharedMaps(q, k, first))

"""Attention-map transfer: the source's map, the target's values (section "Structure" of arXiv 2504.10317).

    output = strength * softmax(Q_source K_source^T / sqrt(d)) V_target + (1 - strength) * the target's own output

`Transfer` takes the source from a store, `LiveTransfer` from row 0 of the same batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .call import AttentionCall, Interceptor, Proceed, Row, Run, Site
from .selection import Indices, LayerMask, choose_branches
from .store import SAME_LEVEL, AttentionStore, Key


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

    def count(self) -> int:
        return len(self.strengths) * len(self.steps) * len(self.branches)


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
        self._expected = self._places.count()
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

    def _check(self, run: Run, places: _Places) -> None:
        source = self.store.header
        if source.model != run.model:
            raise TransferError(f"The maps were recorded from a model of {source.model}; this one has {run.model}.")
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
            self._check_step(run.sigmas[step], step, places)

    def _check_step(self, sigma: float, step: int, places: _Places) -> None:
        found = self.store.find(sigma, gap=self.gap)
        if found is None:
            levels = ", ".join(f"{e.sigma:.4f}" for e in self.store.evaluations)
            raise TransferError(
                f"Step {step} is at noise level {sigma:.4f}, which was not recorded (recorded: {levels or 'none'}). "
                "Record these steps with the target's sampler settings, narrow the transfer's steps, or widen its gap."
            )
        for branch in places.branches:
            for layer in places.strengths:
                if Key(found, branch, layer) not in self.store:
                    raise TransferError(
                        f"Layer {layer} of branch {branch!r} at step {step} was not recorded. "
                        f"The store holds layers {list(self.store.layers)}, branches {list(self.store.branches)}."
                    )

    def __call__(self, call: AttentionCall, proceed: Proceed) -> Tensor:
        assert self._places is not None
        site, places = call.site, self._places
        evaluation = self.store.find(site.sigma, site.visit, self.gap)
        if evaluation is None:
            self._missed += 1
            return proceed(call)
        q, k = call.q, call.k
        for branch in places.branches:
            rows = [i for i, row in enumerate(site.rows) if row.branch == branch]
            if rows:
                source = self.store.get(Key(evaluation, branch, site.layer), q.device, q.dtype)
                samples = [site.rows[i].sample for i in rows]
                source_q, source_k = (self._for_rows(x, samples, places.heads) for x in source)
                q, k = _place(q, rows, places.heads, source_q), _place(k, rows, places.heads, source_k)
                self._note(site, branch)
        output = proceed(replace(call, q=q, k=k))
        return _blend(call, output, places.strengths[site.layer])

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


def _blend(call: AttentionCall, output: Tensor, strength: float) -> Tensor:
    """Mixing outputs mixes maps: the values are the same."""
    return output if strength == 1 else torch.lerp(call.dense(), output, strength)


class LiveTransfer(MapTransfer):
    """Source and targets in one batch: in each branch the map of sample 0 serves the other samples.

    Nothing is stored. Where all heads are replaced at full strength, the softmax is computed once for all rows' values.

    Args:
        where: layers, heads, steps and branches.
        masks: a mask for each target, instead of `where.layers`: sample n takes the source's map in the layers of
            masks[n - 1] ("none": it runs as it is). So one run samples a target under many masks.

    Raises (in `begin`):
        TransferError: if the batch holds the source alone, or another number of targets than of masks.
    """

    any_grid = True

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

    def __call__(self, call: AttentionCall, proceed: Proceed) -> Tensor:
        assert self._places is not None
        rows, heads = call.site.rows, self._places.heads
        sources = {row.branch: i for i, row in enumerate(rows) if row.sample == 0}
        taking = self._taking(call.site, sources)
        shared = [i for i, strength in taking.items() if strength == 1 and heads is None]
        output, done = torch.empty_like(call.v), set[int]()
        for branch, source in sources.items():
            if takers := [i for i in shared if rows[i].branch == branch]:
                output[[source, *takers]] = _shared(call, source, [source, *takers], proceed)
                done |= {source, *takers}
        if rest := [i for i in range(len(rows)) if i not in done]:
            parts = {i: strength for i, strength in taking.items() if i not in done}
            q, k = call.q, call.k
            if parts:
                of = [sources[rows[i].branch] for i in parts]
                chosen = heads or list(range(q.shape[1]))
                q, k = (_place(x, list(parts), chosen, x[of][:, chosen]) for x in (q, k))
            output[rest] = proceed(_rows_of(replace(call, q=q, k=k), rest))
            for strength in set(parts.values()):
                alike = [i for i in parts if parts[i] == strength]
                output[alike] = _blend(_rows_of(call, alike), output[alike], strength)
        return output

    def _taking(self, site: Site, sources: dict[str, int]) -> dict[int, float]:
        """The rows of a call that take the source's map, with the strength of each."""
        assert self._places is not None
        taking = {}
        for i, row in enumerate(site.rows):
            strength = self._strengths[row.sample].get(site.layer, 0.0)
            if strength > 0 and row.branch in self._places.branches and row.branch in sources:
                taking[i] = strength
                self._note(site, row.branch)
        return taking


def _rows_of(call: AttentionCall, rows: list[int]) -> AttentionCall:
    if len(rows) == len(call.site.rows):
        return call
    site = replace(call.site, rows=tuple(call.site.rows[i] for i in rows))
    return replace(call, site=site, q=call.q[rows], k=call.k[rows], v=call.v[rows])


def _shared(call: AttentionCall, source: int, rows: list[int], proceed: Proceed) -> Tensor:
    """One map, the values of many rows side by side: (rows, heads, tokens, head_dim)."""
    values = call.v[rows]
    wide = values.permute(1, 2, 0, 3).flatten(2)[None]
    site = replace(call.site, rows=(Row(call.site.rows[source].branch, 0),))
    one = replace(call, site=site, q=call.q[source : source + 1], k=call.k[source : source + 1], v=wide)
    return proceed(one)[0].unflatten(-1, (len(rows), -1)).permute(2, 0, 1, 3)

"""Statistics of many maps: while a run goes on, or from a store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..call import AttentionCall, Interceptor, Proceed, Run, Site, TokenGrid
from ..record import Selection
from ..selection import choose_branches
from ..store import AttentionStore, Evaluation, Key, StoreError
from .statistics import MapStatistics, map_statistics
from .wanted import Wanted


@dataclass(frozen=True)
class Observed:
    """The statistics of a run's calls. Their rows are the run's samples; heads: which heads they hold."""

    grid: TokenGrid
    layers: int
    sigmas: tuple[float, ...]
    heads: tuple[int, ...]
    calls: dict[Key, MapStatistics] = field(default_factory=dict)

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """In the order of the run."""
        return tuple(dict.fromkeys(key.evaluation for key in self.calls))

    def layers_at(self, key: Key) -> list[int]:
        """The layers observed at the evaluation and in the branch of a call."""
        return sorted(k.layer for k in self.calls if (k.evaluation, k.branch) == (key.evaluation, key.branch))

    def step(self, evaluation: Evaluation) -> int:
        """Which step of the run an evaluation belongs to."""
        return max(0, sum(level >= evaluation.sigma * (1 - 1e-5) for level in self.sigmas) - 1)


class Observer(Interceptor):
    """Computes statistics of chosen calls while the model samples; keeps no queries or keys, changes nothing.

    Args:
        selection: which calls. wanted, queries, seed: see `map_statistics`.

    Raises (in `begin`):
        SelectionError: if the selection does not fit the run.
    """

    def __init__(
        self,
        selection: Selection | None = None,
        wanted: Wanted | None = None,
        queries: int | None = None,
        seed: int = 0,
    ) -> None:
        self.selection = selection or Selection()
        self.wanted, self.queries, self.seed = wanted, queries, seed
        self._filling: Observed | None = None
        self._observed: Observed | None = None

    @property
    def observed(self) -> Observed:
        """What the last run showed.

        Raises:
            RuntimeError: if that run has not ended, or did not end well.
        """
        if self._observed is None:
            raise RuntimeError("There are no statistics: the observed sampling run has not ended well.")
        return self._observed

    def begin(self, run: Run) -> None:
        self._observed = None
        self._layers = set(self.selection.layers.resolve(run.model.layers, "layer"))
        self._steps = set(self.selection.steps.resolve(run.steps, "step"))
        self._branches = choose_branches(self.selection.branches, run.branches)
        heads = self.selection.heads.resolve(run.model.heads, "head")
        self._filling = Observed(run.grid, run.model.layers, run.sigmas, heads)

    def wants(self, site: Site) -> bool:
        return (
            self._filling is not None
            and bool(self._filling.heads)
            and site.layer in self._layers
            and site.step in self._steps
            and any(row.branch in self._branches for row in site.rows)
        )

    def __call__(self, call: AttentionCall, proceed: Proceed) -> Tensor:
        assert self._filling is not None
        site = call.site
        for branch in self._branches:
            rows = [i for i, row in enumerate(site.rows) if row.branch == branch]
            if rows:
                q, k = (x[rows][:, list(self._filling.heads)] for x in (call.q, call.k))
                key = Key(Evaluation(site.sigma, site.visit), branch, site.layer)
                self._filling.calls[key] = map_statistics(
                    q, k, self._filling.grid, self.wanted, self.queries, self.seed
                )
        return proceed(call)

    def end(self, completed: bool) -> None:
        filled, self._filling = self._filling, None
        if completed:
            self._observed = filled


def choose(store: AttentionStore, selection: Selection) -> list[Key]:
    """The recorded calls that a selection means, in the order of the run.

    Raises:
        SelectionError: if it does not fit the recorded model.
        StoreError: naming what was recorded, if nothing of it was.
    """
    header = store.header
    layers = selection.layers.resolve(header.model.layers, "layer")
    steps = selection.steps.resolve(len(header.sigmas), "step")
    branches = choose_branches(selection.branches, store.branches)
    found = [
        key
        for evaluation in store.evaluations
        if Observed(header.grid, 0, header.sigmas, ()).step(evaluation) in steps
        for branch in branches
        for layer in layers
        if (key := Key(evaluation, branch, layer)) in store
    ]
    if not found:
        raise StoreError(
            f"Nothing of layers {selection.layers}, steps {selection.steps}, branch {selection.branches} was recorded. "
            f"The store holds {store.summary()}."
        )
    return found


def from_store(
    store: AttentionStore,
    selection: Selection | None = None,
    wanted: Wanted | None = None,
    queries: int | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    on_call: Callable[[], None] | None = None,
    on_chunk: Callable[[], None] | None = None,
) -> Observed:
    """The statistics of recorded calls, computed on `device`; see `map_statistics`.

    on_call: called after each call, to show progress. on_chunk: after each part of one, to raise an interrupt.

    Raises:
        SelectionError, StoreError: as `choose`, and if a chosen head was not recorded.
    """
    selection = selection or Selection()
    header = store.header
    heads = tuple(h for h in selection.heads.resolve(header.model.heads, "head") if h in header.heads)
    if not heads:
        raise StoreError(f"Heads {selection.heads} were not recorded; the store holds heads {list(header.heads)}.")
    picked = [header.heads.index(head) for head in heads]
    observed = Observed(header.grid, header.model.layers, header.sigmas, heads)
    for key in choose(store, selection):
        q, k = (x[:, picked] for x in store.get(key, torch.device(device), torch.float32))
        observed.calls[key] = map_statistics(q, k, header.grid, wanted, queries, seed, on_chunk)
        if on_call:
            on_call()
    return observed

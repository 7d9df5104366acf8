"""Statistics of many maps: while a run goes on, or from a store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..call import AttentionCall, Interceptor, Proceed, Run, Site
from ..recording.recorder import Selection
from ..recording.store import AttentionStore, Evaluation, Header, Key, StoreError
from ..selection import choose_branches
from .crop import Window, map_window
from .statistics import MapStatistics, check_queries, map_statistics
from .wanted import Wanted

#: Is handed the whole statistics of each call; kept is then only their small part, a few kB a map.
Show = Callable[[Key, MapStatistics], None]


@dataclass(frozen=True)
class Observed:
    """The statistics of a run's calls. Their rows are the run's samples; heads: which heads they hold."""

    run: Run
    heads: tuple[int, ...]
    calls: dict[Key, MapStatistics] = field(default_factory=dict)

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """In the order of the run."""
        return tuple(dict.fromkeys(key.evaluation for key in self.calls))

    @property
    def layers(self) -> list[int]:
        return sorted({key.layer for key in self.calls})

    def of_layer(self, layer: int) -> list[MapStatistics]:
        return [found for key, found in self.calls.items() if key.layer == layer]

    def layers_at(self, key: Key) -> list[int]:
        """The layers observed at the evaluation and in the branch of a call."""
        return sorted(k.layer for k in self.calls if (k.evaluation, k.branch) == (key.evaluation, key.branch))

    def put(self, key: Key, found: MapStatistics, show: Show | None) -> None:
        if show is not None:
            show(key, found)
            found = found.small()
        self.calls[key] = found


class Observer(Interceptor):
    """Computes statistics of chosen calls while the model samples; keeps no queries or keys, changes nothing.

    Args:
        selection: which calls. wanted, queries, seed: see `map_statistics`. show: None keeps everything.

    Raises (in `begin`):
        SelectionError: if the selection does not fit the run.
        ValueError: if so many queries cannot be sampled.
    """

    def __init__(
        self,
        selection: Selection | None = None,
        wanted: Wanted | None = None,
        queries: int | None = None,
        seed: int = 0,
        show: Show | None = None,
    ) -> None:
        self.selection = selection or Selection()
        self.wanted, self.queries, self.seed, self.show = wanted, queries, seed, show
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
        self._chosen = self.selection.resolve(run)
        if self.queries is not None:
            check_queries(run.grid, self.queries)
        self._filling = Observed(run, self._chosen.heads)

    def wants(self, site: Site) -> bool:
        return self._filling is not None and self._chosen.take(site)

    def __call__(self, call: AttentionCall, proceed: Proceed) -> Tensor:
        assert self._filling is not None
        site, grid = call.site, self._filling.run.grid
        for branch, rows in self._chosen.rows(site).items():
            q, k = (_pick(_pick(x, 0, rows), 1, self._chosen.heads) for x in (call.q, call.k))
            key = Key(Evaluation(site.sigma, site.visit), branch, site.layer)
            found = map_statistics(q, k, grid, self.wanted, self.queries, self.seed)
            self._filling.put(key, found, self.show)
        return proceed(call)

    def end(self, completed: bool) -> None:
        filled, self._filling = self._filling, None
        if completed:
            self._observed = filled


def recorded_run(header: Header, branches: tuple[str, ...]) -> Run:
    """The run that a store was recorded of, as far as its header tells."""
    dtype = stored_dtype(header)
    return Run(header.model, header.grid, header.sigmas, branches, header.samples, dtype, header.kind, made=header.made)


def stored_dtype(header: Header) -> torch.dtype:
    """What queries and keys were computed in."""
    return getattr(torch, header.dtype)


def choose(store: AttentionStore, selection: Selection) -> list[Key]:
    """The recorded calls that a selection means, in the order of the run.

    Raises:
        SelectionError: if it does not fit the recorded model.
        StoreError: naming what was recorded, if nothing of it was.
    """
    run = recorded_run(store.header, store.branches)
    layers = selection.layers.resolve(run.model.layers, "layer")
    steps = selection.steps.resolve(run.steps, "step")
    if selection.branches not in ("all", *run.branches):
        there = ", ".join(sorted(run.branches))
        raise StoreError(f"Branch {selection.branches!r} was not recorded; the store holds {there}.")
    found = [
        key
        for evaluation in store.evaluations
        if run.step_of(evaluation.sigma) in steps
        for branch in choose_branches(selection.branches, run.branches)
        for layer in layers
        if (key := Key(evaluation, branch, layer)) in store
    ]
    if not found:
        raise StoreError(
            f"Nothing of layers {selection.layers}, steps {selection.steps}, branch {selection.branches} was recorded. "
            f"The store holds {store.summary()}."
        )
    return found


def choose_heads(store: AttentionStore, selection: Selection) -> tuple[int, ...]:
    """The recorded heads that a selection means.

    Raises:
        SelectionError: if it does not fit the recorded model. StoreError: if none of them was recorded.
    """
    header = store.header
    heads = tuple(h for h in selection.heads.resolve(header.model.heads, "head") if h in header.heads)
    if not heads:
        raise StoreError(f"Heads {selection.heads} were not recorded; the store holds heads {list(header.heads)}.")
    return heads


def from_store(
    store: AttentionStore,
    selection: Selection | None = None,
    wanted: Wanted | None = None,
    queries: int | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    show: Show | None = None,
    on_call: Callable[[], None] | None = None,
    on_chunk: Callable[[], None] | None = None,
) -> Observed:
    """The statistics of recorded calls, computed on `device`; see `map_statistics`.

    show: None keeps everything. on_call: called after each call, to show progress. on_chunk: after each part of one, to
    raise an interrupt.

    Raises:
        SelectionError, StoreError: as `choose` and `choose_heads`. ValueError: if so many queries cannot be sampled.
    """
    selection = selection or Selection()
    heads = choose_heads(store, selection)
    observed = Observed(recorded_run(store.header, store.branches), heads)
    for key in choose(store, selection):
        q, k = queries_and_keys(store, key, heads, device)
        found = map_statistics(q, k, store.header.grid, wanted, queries, seed, on_chunk)
        del q, k
        observed.put(key, found, show)
        if on_call:
            on_call()
    return observed


def window_of(
    store: AttentionStore,
    key: Key,
    heads: Sequence[int],
    window: Window,
    device: str | torch.device = "cpu",
    on_chunk: Callable[[], None] | None = None,
) -> Tensor:
    """A part of one call's maps, (samples, heads, ..); see `map_window`."""
    return map_window(*queries_and_keys(store, key, heads, device), window, on_chunk)


def queries_and_keys(
    store: AttentionStore, key: Key, heads: Sequence[int], device: str | torch.device
) -> tuple[Tensor, Tensor]:
    """Some heads of a recorded call, (samples, heads, tokens, head_dim) in the run's dtype; not a copy, if neighbouring
    heads lie on the device as they are."""
    places = [store.header.heads.index(head) for head in heads]
    q, k = store.get(key, torch.device(device), stored_dtype(store.header))
    return _pick(q, 1, places), _pick(k, 1, places)


def _pick(x: Tensor, dim: int, places: Sequence[int]) -> Tensor:
    """Some places of a dimension; a view where they follow one another."""
    first = places[0]
    if list(places) == list(range(first, first + len(places))):
        return x.narrow(dim, first, len(places))
    return x.index_select(dim, torch.tensor(places, device=x.device))

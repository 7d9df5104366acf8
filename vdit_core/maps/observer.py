"""Statistics of many maps: while a run goes on, or from a store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..call import AttentionCall, Run, TokenGrid
from ..observer import RunObserver
from ..recording.store import AttentionStore, Evaluation, Key
from ..recording.store.query import choose, choose_heads, of_call, queries_and_keys, recorded_run, with_text_share
from ..selection import ResolvedSelection, Selection
from .crop import Crop, map_crop
from .pending import Queue
from .sampling import min_queries
from .statistics import MapStatistics, Plan
from .wanted import EVERYWHERE, EXACT_UP_TO, SAMPLED, SAMPLED_EVERYWHERE, Wanted

#: Is handed the statistics of each call, in order, a few calls late; kept is then only their small part, a few kB a
#: map. That is all that is computed where its method `looks_at(key)`, if it has one as `view.Shown`, says no.
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


class Plans:
    """How the calls of a run are measured: whole where somebody looks at them, else only what is kept.

    Raises:
        ValueError: if so many queries cannot be sampled.
    """

    def __init__(
        self, grid: TokenGrid, wanted: Wanted | None, queries: int | None, seed: int, show: Show | None
    ) -> None:
        wanted = wanted or Wanted()
        self._whole, self._small = (Plan(grid, one, queries, seed) for one in (wanted, wanted.small()))
        self._looks_at = getattr(show, "looks_at", None)

    def of(self, key: Key) -> Plan:
        return self._whole if self._looks_at is None or self._looks_at(key) else self._small


class MapObserver(RunObserver[Observed]):
    """Computes statistics of chosen calls while the model samples; keeps no queries or keys, changes nothing.

    On a GPU the sampling does not wait for them.

    Args:
        selection: which calls. wanted, seed: see `map_statistics`. show: None keeps everything.
        queries: likewise; "auto": all of small maps; of large ones SAMPLED, or SAMPLED_EVERYWHERE where more than the
            share EVERYWHERE of a run's calls is observed. If nothing else is wanted or shown, that is then
            `Wanted.light`: whole statistics are megabytes a call.

    Raises (in `begin`):
        SelectionError: if the selection does not fit the run.
        ValueError: if so many queries cannot be sampled.
    """

    thing = "statistics"

    def __init__(
        self,
        selection: Selection | None = None,
        wanted: Wanted | None = None,
        queries: int | str | None = "auto",
        seed: int = 0,
        show: Show | None = None,
    ) -> None:
        super().__init__(selection)
        if isinstance(queries, str) and queries != "auto":
            raise ValueError(f"queries is {queries!r}; it is a number, None for all, or 'auto'.")
        self.wanted, self.queries, self.seed, self.show = wanted, queries, seed, show
        self._plans: Plans | None = None
        self._coming: Queue[Key, MapStatistics] | None = None

    @property
    def observed(self) -> Observed:
        """What the last run showed. Raises RuntimeError if that run has not ended, or did not end well."""
        return self.result

    def _start(self, run: Run, chosen: ResolvedSelection) -> Observed:
        queries, wanted = self.queries, self.wanted
        if isinstance(queries, str):
            queries = auto_queries(run, chosen)
            if wanted is None and self.show is None and everywhere(run, chosen):
                wanted = Wanted().light()
        self._plans = Plans(run.grid, wanted, queries, self.seed, self.show)
        observed = Observed(run, chosen.heads)
        self._coming = Queue(lambda key, found: observed.put(key, found, self.show))
        return observed

    def _observe(self, observed: Observed, call: AttentionCall, branch: str, rows: list[int], _: Tensor | None) -> bool:
        assert self._plans is not None
        assert self._coming is not None
        key = Key.of(call.site, branch)
        self._coming.add(key, self._plans.of(key).start(*of_call(call, rows, observed.heads)))
        return True

    def _finish(self, filled: Observed) -> Observed:
        if self._coming is not None:
            self._coming.settle()
        self._forget()
        return filled

    def _discard(self, filled: Observed) -> None:
        self._forget()

    def _forget(self) -> None:
        """Tables and figures on a GPU go with the run."""
        self._plans = self._coming = None

    def _size(self) -> str:
        calls = self.observed.calls
        return f"{len(calls)} calls" + (f", {of_queries(next(iter(calls.values())))}" if calls else "")


def auto_queries(run: Run, chosen: ResolvedSelection) -> int | None:
    """How many queries stand for all while a run goes on, if nobody says; None: all are computed."""
    if run.grid.tokens <= EXACT_UP_TO:
        return None
    return max(SAMPLED_EVERYWHERE, min_queries(run.grid)) if everywhere(run, chosen) else SAMPLED


def everywhere(run: Run, chosen: ResolvedSelection) -> bool:
    """Whether so many calls on large maps are observed that the run would feel it."""
    share = len(chosen.layers) * len(chosen.steps) / max(1, run.model.layers * run.steps)
    return run.grid.tokens > EXACT_UP_TO and share > EVERYWHERE


def of_queries(found: MapStatistics) -> str:
    """Of how many queries statistics are, in words."""
    return "all queries" if found.exact else f"{found.queries:,} of {found.grid.tokens:,} queries, sampled"


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
    plans = Plans(store.header.grid, wanted, queries, seed, show)
    coming: Queue[Key, MapStatistics] = Queue(lambda key, found: observed.put(key, found, show))
    for key in choose(store, selection):
        coming.add(key, plans.of(key).start(*with_text_share(store, key, heads, device), on_chunk))
        if on_call:
            on_call()
    coming.settle()
    return observed


def crop_of(
    store: AttentionStore,
    key: Key,
    heads: Sequence[int],
    window: Crop,
    device: str | torch.device = "cpu",
    on_chunk: Callable[[], None] | None = None,
) -> Tensor:
    """A part of one call's maps, (samples, heads, ..); see `map_crop`."""
    return map_crop(*queries_and_keys(store, key, heads, device), window, on_chunk)

"""Statistics of many maps: while a run goes on, or from a store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..call import AttentionCall, Run
from ..observer import RunObserver
from ..recording.store import AttentionStore, Evaluation, Key
from ..recording.store.query import choose, choose_heads, of_call, queries_and_keys, recorded_run, with_text_share
from ..selection import ResolvedSelection, Selection
from .crop import Crop, map_crop
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


class MapObserver(RunObserver[Observed]):
    """Computes statistics of chosen calls while the model samples; keeps no queries or keys, changes nothing.

    Args:
        selection: which calls. wanted, queries, seed: see `map_statistics`. show: None keeps everything.

    Raises (in `begin`):
        SelectionError: if the selection does not fit the run.
        ValueError: if so many queries cannot be sampled.
    """

    thing = "statistics"

    def __init__(
        self,
        selection: Selection | None = None,
        wanted: Wanted | None = None,
        queries: int | None = None,
        seed: int = 0,
        show: Show | None = None,
    ) -> None:
        super().__init__(selection)
        self.wanted, self.queries, self.seed, self.show = wanted, queries, seed, show

    @property
    def observed(self) -> Observed:
        """What the last run showed. Raises RuntimeError if that run has not ended, or did not end well."""
        return self.result

    def _start(self, run: Run, chosen: ResolvedSelection) -> Observed:
        if self.queries is not None:
            check_queries(run.grid, self.queries)
        return Observed(run, chosen.heads)

    def _observe(self, observed: Observed, call: AttentionCall, branch: str, rows: list[int], _: Tensor | None) -> bool:
        q, k, text = of_call(call, rows, observed.heads)
        found = map_statistics(q, k, observed.run.grid, self.wanted, self.queries, self.seed)
        observed.put(Key.of(call.site, branch), replace(found, text=None if text is None else text.cpu()), self.show)
        return True

    def _size(self) -> str:
        return f"{len(self.observed.calls)} calls"


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
        q, k, text = with_text_share(store, key, heads, device)
        found = map_statistics(q, k, store.header.grid, wanted, queries, seed, on_chunk)
        found = replace(found, text=None if text is None else text.cpu())
        del q, k
        observed.put(key, found, show)
        if on_call:
            on_call()
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

"""What heads look at, of many calls: while a run goes on, or from recordings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..call import AttentionCall, Run
from ..errors import VDiTError
from ..maps.statistics import check_queries
from ..observer import RunObserver
from ..recording.store import AttentionStore, Key
from ..recording.store.query import choose, choose_heads, of_call, recorded_run, with_text_share
from ..selection import ResolvedSelection, Selection
from .statistics import HeadFigures, head_figures, uniform


class RolesError(VDiTError, ValueError):
    """Runs whose heads cannot be described together."""


@dataclass(frozen=True)
class ObservedHeads:
    """The figures of a run's calls, (samples, heads) each; heads: which heads these are."""

    run: Run
    heads: tuple[int, ...]
    calls: dict[Key, HeadFigures] = field(default_factory=dict)


@dataclass(frozen=True)
class HeadTable:
    """The figures of a model's heads.

    run: of the first recording. layers, heads: which ones, in the order of `figures`, (layers, heads): means over
    evaluations, branches and videos. speed: (layers, heads), the length of the displacement, mean over videos: videos
    that move in opposite directions have a displacement of 0 together, not a speed. sway: (layers, heads), the root
    mean square of how far the displacement in a video is from that of all; of a single video its speed. moved: (videos,
    layers, heads, 2), the displacement in each. level: the same figures of a map without preference, 0-D.
    """

    run: Run
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    figures: HeadFigures
    speed: Tensor
    sway: Tensor
    moved: Tensor
    level: HeadFigures
    calls: int


class RoleObserver(RunObserver[ObservedHeads]):
    """Computes the figures of heads while the model samples; keeps no queries or keys, changes nothing.

    Args:
        selection: which calls. queries, seed: see `head_figures`.

    Raises (in `begin`):
        SelectionError: if the selection does not fit the run. ValueError: if so many queries cannot be sampled.
    """

    thing = "figures of heads"

    def __init__(self, selection: Selection | None = None, queries: int | None = None, seed: int = 0) -> None:
        super().__init__(selection)
        self.queries, self.seed = queries, seed

    def _start(self, run: Run, chosen: ResolvedSelection) -> ObservedHeads:
        if self.queries is not None:
            check_queries(run.grid, self.queries)
        return ObservedHeads(run, chosen.heads)

    def _observe(
        self, seen: ObservedHeads, call: AttentionCall, branch: str, rows: list[int], _: Tensor | None
    ) -> bool:
        q, k, text = of_call(call, rows, seen.heads)
        found = head_figures(q, k, seen.run.grid, self.queries, self.seed)
        seen.calls[Key.of(call.site, branch)] = found if text is None else replace(found, text=text.float().cpu())
        return True

    def _size(self) -> str:
        return f"{len(self.result.calls)} calls"


def from_store(
    store: AttentionStore,
    selection: Selection | None = None,
    queries: int | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    on_call: Callable[[], None] | None = None,
    on_chunk: Callable[[], None] | None = None,
) -> ObservedHeads:
    """The figures of recorded calls, computed on `device`; see `head_figures`.

    on_call: called after each call, to show progress. on_chunk: after each part of one, to raise an interrupt.

    Raises:
        SelectionError, StoreError: as `choose` and `choose_heads`. ValueError: if so many queries cannot be sampled.
    """
    selection = selection or Selection()
    heads = choose_heads(store, selection)
    seen = ObservedHeads(recorded_run(store.header, store.branches), heads)
    for key in choose(store, selection):
        q, k, text = with_text_share(store, key, heads, device)
        found = head_figures(q, k, store.header.grid, queries, seed, on_chunk)
        seen.calls[key] = found if text is None else replace(found, text=text.float().cpu())
        if on_call:
            on_call()
    return seen


def table(runs: Sequence[ObservedHeads]) -> HeadTable:
    """The figures of each head, of all calls of one or several runs of a model.

    A displacement is a mean over a video's calls, each weighted by its match: noise matches nothing.

    Raises:
        RolesError: if there is no call, or the runs are of different models, heads, layers or sizes.
    """
    if not runs or not all(seen.calls for seen in runs):
        raise RolesError("There is no attention call to take a head's role from. Record a run first.")
    first = runs[0]
    layers = tuple(sorted({key.layer for key in first.calls}))
    for seen in runs[1:]:
        others = tuple(sorted({key.layer for key in seen.calls}))
        for what, a, b in (
            ("models", first.run.model, seen.run.model),
            ("grids", first.run.grid, seen.run.grid),
            ("layers", list(layers), list(others)),
            ("heads", list(first.heads), list(seen.heads)),
        ):
            if a != b:
                raise RolesError(
                    f"The recordings are of different {what}: {a} and {b}. "
                    "Record both with the same model, size and selection."
                )
    videos = [_of_videos(seen, layers) for seen in runs]
    every = HeadFigures(**{name: torch.cat([getattr(of, name) for of in videos]) for name, _ in videos[0].items()})
    moved = every.displacement
    sway = (moved - moved.mean(0) * (len(moved) > 1)).square().sum(-1).mean(0).sqrt()
    return HeadTable(
        first.run,
        layers,
        first.heads,
        every.map(lambda x: x.mean(0)),
        moved.norm(dim=-1).mean(0),
        sway,
        moved,
        uniform(first.run.grid),
        sum(len(seen.calls) for seen in runs),
    )


def _of_videos(seen: ObservedHeads, layers: Sequence[int]) -> HeadFigures:
    """Means over a run's calls: (videos, layers, heads)."""
    of_layers = []
    for layer in layers:
        calls = [found for key, found in seen.calls.items() if key.layer == layer]
        stacked = HeadFigures(**{name: torch.stack([getattr(c, name) for c in calls]) for name, _ in calls[0].items()})
        weight = stacked.match[..., None].clamp(min=1e-9)
        moved = (stacked.displacement * weight).sum(0) / weight.sum(0)
        of_layers.append(replace(stacked.map(lambda x: x.mean(0)), displacement=moved))
    return HeadFigures(
        **{name: torch.stack([getattr(of, name) for of in of_layers], 1) for name, _ in of_layers[0].items()}
    )

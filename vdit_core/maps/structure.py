"""What the paper's section "Structure" shows of a model: a recording's maps whole and enlarged, and their locality in
time and in space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from ..recording.store import AttentionStore, Header
from ..recording.store.query import choose, choose_heads, recorded_run, stored_dtype
from ..reporting.needed_keys import needed_picture
from ..selection import Selection
from . import distance, gpu, pictures
from .crop import Crop
from .needed import NeededKeys
from .observer import Observed, crop_of, from_store
from .statistics import check_queries
from .view import Shown, View, choose_crop, choose_view, one_map, title
from .wanted import EXACT_UP_TO, SAMPLED, Wanted


@dataclass(frozen=True)
class Choice:
    """Which map is shown, -1 for the middle one or the mean of heads, and which tokens of it are enlarged, as
    "first-last" or "" for a few frames in the middle."""

    branch: str = "cond"
    layer: int = -1
    step: int = -1
    head: int = -1
    sample: int = 0
    rows: str = ""
    columns: str = ""


@dataclass(frozen=True)
class Structure:
    """What was looked at: all calls' figures; the shown map, pooled, at every step; and a part of it, (a, b)."""

    observed: Observed
    shown: Shown
    window: Crop
    part: Tensor


def look(
    store: AttentionStore,
    selection: Selection | None = None,
    choice: Choice | None = None,
    queries: int | None = None,
    pooled: int = 512,
    device: str | torch.device = "cpu",
    on_call: Callable[[], None] | None = None,
    on_chunk: Callable[[], None] | None = None,
    top_queries: int | None = Wanted.top_queries,
) -> Structure:
    """Look at a recording's maps; every mistake is raised before anything is computed.

    Args:
        selection: of which calls figures are taken. queries, pooled, top_queries: see `map_statistics` and `Wanted`.
        on_call, on_chunk: see `from_store`.

    Raises:
        SelectionError, StoreError, ValueError: naming what was chosen and what is there.
    """
    selection, choice = selection or Selection(), choice or Choice()
    run, heads = recorded_run(store.header, store.branches), choose_heads(store, selection)
    calls = choose(store, selection)
    view = choose_view(calls, run, heads, choice.branch, choice.layer, choice.step, choice.head, choice.sample)
    window = choose_crop(run.grid, choice.rows, choice.columns)
    if queries is not None:
        check_queries(run.grid, queries)
    shown = Shown(run, heads, view)
    wanted = Wanted(pooled, top_queries=top_queries)
    observed = from_store(
        store, selection, wanted, queries, device=device, show=shown, on_call=on_call, on_chunk=on_chunk
    )
    of = heads if view.head is None else (view.head,)
    part = crop_of(store, view.key, of, window, device, on_chunk)
    return Structure(observed, shown, window, one_map(part, of, view))


def auto_queries(header: Header, device: str | torch.device = "cpu") -> int | None:
    """How many queries are sampled, if nobody says: None, all, of small maps and where the GPU kernels serve."""
    some = torch.empty(0, 0, header.model.head_dim, dtype=stored_dtype(header), device=device)
    quick = header.grid.tokens <= EXACT_UP_TO or gpu.kernels_for(some, some) is not None
    return None if quick else SAMPLED


def whole(shown: Shown, log: bool = True, edge: int = pictures.EDGE) -> Image.Image:
    """The whole map, pooled; at least `edge` px."""
    run, view = shown.run, shown.view
    return pictures.map_picture(shown.maps[view.key.evaluation], run.grid, title(run, view), log=log, edge=edge)


def band(found: Structure, log: bool = True) -> Image.Image:
    """A part of the map, enlarged: one sees a square for each pair of frames."""
    run, view, window = found.shown.run, found.shown.view, found.window
    tokens = max(end - first for first, end in (window.rows, window.columns))
    kind = "every weight" if tokens <= window.edge else f"pooled to {window.edge}"
    name = f"{title(run, view)} · enlarged, {kind}"
    return pictures.map_picture(found.part, run.grid, name, window.rows, window.columns, log)


def per_frame(observed: Observed, view: View) -> Image.Image:
    """The frame-by-frame maps of every layer, at the evaluation of a view."""
    layers = observed.layers_at(view.key)
    found = [observed.calls[replace(view.key, layer=layer)].frames.value for layer in layers]
    maps = torch.stack([one_map(frames, observed.heads, view) for frames in found])
    names = [f"layer {layer}" for layer in layers]
    any_layer = replace(view, key=replace(view.key, layer=-1))
    return pictures.frames_picture(maps, names, "Attention from frame to frame · " + title(observed.run, any_layer))


def needed(observed: Observed) -> Image.Image:
    """How many keys each head needs."""
    found = NeededKeys.of(observed)
    title = f"Keys that hold {100 * found.mass:g} % of a query's attention · {observed.run.grid}"
    return needed_picture(found.values, title, found.layers, found.heads)


def decay(observed: Observed) -> Image.Image:
    """How attention falls with distance, for each layer: the mean over heads, samples, evaluations and branches."""
    return pictures.decay_picture(decay_curves(observed), f"Locality · {observed.run.grid}")


def decay_curves(observed: Observed) -> dict[int, tuple[Tensor, Tensor]]:
    """For each layer the weight of a pair of tokens by frames apart (F,) and by tokens apart within the frame (D,), as
    a ratio to a map without preference; means over heads, samples, evaluations and branches."""
    grid = observed.run.grid
    in_time, in_space = (distance.uniform(table(grid), grid) for table in (distance.temporal, distance.spatial))
    curves = {}
    for layer in observed.layers:
        temporal, spatial = (
            torch.stack([getattr(found, name).value.double().mean((0, 1)) for found in observed.of_layer(layer)])
            for name in ("temporal", "spatial")
        )
        curves[layer] = (temporal.mean(0) / in_time, spatial.mean(0) / in_space)
    return curves


def animation(shown: Shown, log: bool = True, edge: int = pictures.EDGE) -> list[Image.Image]:
    """The whole map at every evaluation that was observed, in one colour scale."""
    every = torch.cat([weights.flatten() for weights in shown.maps.values()])
    high = max(float(every[:: max(1, len(every) // 2**20)].quantile(0.999)), 1e-30)
    limits = (high * 1e-4 if log else 0.0, high)
    grid = shown.run.grid
    views = {e: replace(shown.view, key=replace(shown.view.key, evaluation=e)) for e in shown.maps}
    return [
        pictures.map_picture(weights, grid, title(shown.run, views[evaluation]), log=log, limits=limits, edge=edge)
        for evaluation, weights in shown.maps.items()
    ]

"""What the paper's section "Structure" shows of a model, as pictures and figures: locality in time and in space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..call import TokenGrid
from ..store import Key
from . import distance, pictures
from .observe import Observed
from .statistics import MapStatistics
from .wanted import Wanted, Window

#: At most so many frames are enlarged, and never more than half of them.
_BAND_FRAMES = 4


@dataclass(frozen=True)
class View:
    """Which map is shown: of one layer and evaluation; head None is the mean over heads."""

    key: Key
    head: int | None = None
    sample: int = 0


def choose_view(observed: Observed, branch: str = "cond", layer: int = -1, step: int = -1, head: int = -1) -> View:
    """A map to show; -1 is the middle one of the layers or steps observed, and the mean over heads.

    Raises:
        ValueError: naming what was not observed, and what was.
    """
    keys = [key for key in observed.calls if key.branch == branch]
    for name, wanted, read in (
        ("step", step, lambda key: observed.step(key.evaluation)),
        ("layer", layer, lambda key: key.layer),
    ):
        there = sorted({read(key) for key in keys})
        chosen = there[len(there) // 2] if wanted < 0 and there else wanted
        if chosen not in there:
            raise ValueError(f"There is no map of {name} {chosen}, branch {branch!r}; there are {name}s {there}.")
        keys = [key for key in keys if read(key) == chosen]
    return View(keys[0], None if head < 0 else head)


def wanted(grid: TokenGrid, pooled: int = 512) -> Wanted:
    """What the pictures of a map on this grid need."""
    size = grid.height * grid.width
    count = max(1, min(_BAND_FRAMES, grid.frames // 2))
    first = grid.prefix + (grid.frames - count) // 2 * size
    band = (first, first + count * size)
    return Wanted(pooled=pooled, window=Window(band, band, edge=pooled))


def whole(observed: Observed, view: View, log: bool = True) -> Image.Image:
    """The whole map, pooled."""
    found = observed.calls[view.key]
    return pictures.map_picture(_of(found.pooled.value, observed, view), found.grid, title(observed, view), log=log)


def band(observed: Observed, view: View, log: bool = True) -> Image.Image:
    """A band around the diagonal, enlarged: one sees a square for each pair of frames."""
    found = observed.calls[view.key]
    if found.window is None or found.wanted.window is None:
        raise ValueError("These statistics have no window: compute them with structure.wanted(grid).")
    window = found.wanted.window
    weights = _of(found.window, observed, view)
    return pictures.map_picture(
        weights, found.grid, f"{title(observed, view)}, enlarged", window.rows, window.columns, log
    )


def per_frame(observed: Observed, views: Sequence[View]) -> Image.Image:
    """The frame-by-frame maps of several views, side by side."""
    maps = torch.stack([_of(observed.calls[view.key].frames.value, observed, view) for view in views])
    names = [f"layer {view.key.layer}" + _head(view) for view in views]
    one = replace(views[0], key=replace(views[0].key, layer=-1))
    return pictures.frames_picture(maps, names, "Attention from frame to frame · " + title(observed, one))


def decay(observed: Observed) -> Image.Image:
    """How attention falls with distance, a line per layer: the mean over heads, evaluations and branches."""
    curves = {f"layer {layer}": curve for layer, curve in decay_curves(observed).items()}
    return pictures.decay_picture(curves, f"Locality · {observed.grid}")


def decay_curves(observed: Observed) -> dict[int, tuple[Tensor, Tensor]]:
    """For each layer the weight of a pair of tokens by frames apart (F,) and by tokens apart within the frame (D,), as
    a ratio to a map without preference; means over heads, evaluations and branches."""
    in_time, in_space = (distance.uniform(table(observed.grid)) for table in (distance.temporal, distance.spatial))
    curves = {}
    for layer in sorted({key.layer for key in observed.calls}):
        mine = [found for key, found in observed.calls.items() if key.layer == layer]
        temporal, spatial = (
            torch.stack([getattr(found, name).value.double().mean((0, 1)) for found in mine]).mean(0)
            for name in ("temporal", "spatial")
        )
        curves[layer] = (temporal / in_time, spatial / in_space)
    return curves


def animation(observed: Observed, view: View, log: bool = True) -> list[Image.Image]:
    """The whole map at every evaluation that was observed, in one colour scale."""
    views = [
        replace(view, key=key)
        for evaluation in observed.evaluations
        if (key := replace(view.key, evaluation=evaluation)) in observed.calls
    ]
    maps = [_of(observed.calls[one.key].pooled.value, observed, one) for one in views]
    every = torch.stack(maps).flatten()
    high = max(float(every[:: max(1, len(every) // 2**20)].quantile(0.999)), 1e-30)
    limits = (high * 1e-4 if log else 0.0, high)
    return [
        pictures.map_picture(weights, observed.grid, title(observed, one), log=log, limits=limits)
        for weights, one in zip(maps, views, strict=True)
    ]


def title(observed: Observed, view: View) -> str:
    """Which map this is, in words; layer -1 is not named."""
    layer = f"layer {view.key.layer}{_head(view)} · " if view.key.layer >= 0 else ""
    sigma = view.key.evaluation.sigma
    step = observed.step(view.key.evaluation)
    return f"{layer}step {step} of {len(observed.sigmas)} (noise {sigma:.2f}) · {view.key.branch}"


def _head(view: View) -> str:
    return ", mean of heads" if view.head is None else f", head {view.head}"


def _of(values: Tensor, observed: Observed, view: View) -> Tensor:
    """One map out of (samples, heads, ..).

    Raises:
        ValueError: if the head was not observed.
    """
    if view.head is None:
        return values[view.sample].mean(0)
    if view.head not in observed.heads:
        raise ValueError(f"Head {view.head} was not observed; there are heads {list(observed.heads)}.")
    return values[view.sample, observed.heads.index(view.head)]


def summary(observed: Observed) -> dict[str, Any]:
    """The figures of each layer, means over heads, evaluations and branches.

    same_frame: the mass on keys of the query's own frame. same_place: on keys at most one token away in the frame, in
    any frame. Both also for a map without preference. entropy: nats, and as a share of the largest possible.
    strongest: the mass on the strongest 10 % of a query's keys. largest_received: the most that a single key gets, 1
    is uniform.
    """
    in_time, in_space = (distance.uniform(table(observed.grid)) for table in (distance.temporal, distance.spatial))
    most = float(torch.tensor(float(observed.grid.tokens)).log())
    layers = {}
    for layer in sorted({key.layer for key in observed.calls}):
        mine = [found for key, found in observed.calls.items() if key.layer == layer]

        def mean(read, mine: list[MapStatistics] = mine) -> float:
            return round(float(torch.stack([read(found).double().mean() for found in mine]).mean()), 5)

        entropy = mean(lambda found: found.entropy.value)
        layers[layer] = {
            "same_frame": mean(lambda found: found.temporal.value[..., 0]),
            "same_place": mean(lambda found: found.spatial.value[..., :2].sum(-1)),
            "entropy": entropy,
            "entropy_share": round(entropy / most, 4),
            "strongest": mean(lambda found: found.top.value[..., found.wanted.top.index(0.1)]),
            "largest_received": mean(lambda found: found.received.value.amax(-1)),
        }
    first = next(iter(observed.calls.values()))
    return {
        "grid": str(observed.grid),
        "queries": "all" if first.exact else first.queries,
        "maps": len(observed.calls) * len(observed.heads),
        "uniform": {"same_frame": round(float(in_time[0]), 5), "same_place": round(float(in_space[:2].sum()), 5)},
        "layers": layers,
    }


def as_text(found: dict[str, Any]) -> str:
    """`summary` as a table (Markdown)."""
    uniform = found["uniform"]
    lines = [
        "| layer | same frame | same place | entropy, of the largest | strongest 10 % | largest received mass |",
        "|---|---|---|---|---|---|",
    ]
    for layer, row in found["layers"].items():
        lines.append(
            f"| {layer} | {row['same_frame']:.0%} | {row['same_place']:.0%} | {row['entropy_share']:.0%} "
            f"| {row['strongest']:.0%} | {row['largest_received']:.1f} x uniform |"
        )
    lines.append(f"| (uniform) | {uniform['same_frame']:.0%} | {uniform['same_place']:.0%} | 100% | 10% | 1.0 |")
    return "\n".join(lines)

"""How alike the attention of two models is, whose maps cannot be laid over each other.

Their layers, heads and grids differ, so figures are compared that every model has: how attention falls with distance in
time and in space, in units of the grid; the frame-by-frame map; and what heads do. Layers are matched by their relative
depth. Models of as many layers and heads may be of one family: their heads are ranked, too, by the keys they need. The
paper (arXiv 2504.10317, section "Structure") says that patterns are alike across models; what two recordings
of one model have is the mark to hold that against.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..recording.store import AttentionStore
from ..reporting.tables import markdown
from ..selection import Selection
from . import distance
from .needed import NeededKeys, Published, ranking
from .observer import Observed, from_store
from .structure import auto_queries, decay_curves
from .wanted import Wanted

#: What a head does, by where more than half of the attention goes that a map without preference would not put there;
#: the first that holds. "same place": at most one token away in the frame, whatever the frame.
ROLES = ("same place", "own frame", "first frame", "spread")
_LEAST = 1e-3  # of a weight relative to uniform: less is as good as nothing
#: Name of a measure: what it is. All are 1 for equal figures.
MEASURES = {
    "time": "decay over frames: concordance of the logarithms",
    "space": "decay within the frame: concordance of the logarithms",
    "frames": "frame-by-frame map: concordance",
    "roles": "roles of heads: overlap of their shares",
}


@dataclass(frozen=True, eq=False)
class Figures:
    """What is known of a recorded model. Layers are the recorded ones; means over samples, evaluations and branches.

    name: its kind and shape. grid: of its tokens, in words. depth: of each layer, 0 the first and 1 the last of the
    model. time: float64 (layers, F), the weight of a pair of tokens by frames apart, over that of a map without
    preference; space: (layers, D), by tokens apart in the frame. frames: (layers, F, F), the mass from frame to frame.
    roles: int64 (layers, heads), places in `ROLES`. needed: the keys that each head needs. shape: the model's layers
    and heads.
    """

    name: str
    grid: str
    depth: tuple[float, ...]
    time: Tensor
    space: Tensor
    frames: Tensor
    roles: Tensor
    needed: NeededKeys
    shape: tuple[int, int]

    def shares(self) -> Tensor:
        """The share of heads in each role, float64 (roles,)."""
        return torch.bincount(self.roles.flatten(), minlength=len(ROLES)).double() / self.roles.numel()

    @classmethod
    def of(cls, observed: Observed, kind: str) -> Figures:
        """The figures of an observed run."""
        run, layers = observed.run, observed.layers
        curves = decay_curves(observed)
        frames = [
            torch.stack([found.frames.value.double().mean((0, 1)) for found in observed.of_layer(layer)]).mean(0)
            for layer in layers
        ]
        return cls(
            f"{kind or 'a model'}, {run.model}",
            str(run.grid),
            tuple(layer / max(run.model.layers - 1, 1) for layer in layers),
            torch.stack([curves[layer][0] for layer in layers]),
            torch.stack([curves[layer][1] for layer in layers]),
            torch.stack(frames),
            torch.stack([_roles(observed, layer) for layer in layers]),
            NeededKeys.of(observed),
            (run.model.layers, run.model.heads),
        )


@dataclass(frozen=True, eq=False)
class AcrossModels:
    """Two models' figures, and of each layer of the first how alike they are: float64 (layers,) each."""

    first: Figures
    second: Figures
    measured: dict[str, Tensor]

    @property
    def rank_correlation(self) -> float | None:
        """Of the heads by the keys they need; None if the models' heads cannot be paired, or are too few."""
        if self.first.shape != self.second.shape:
            return None
        return self.first.needed.rank_correlation(self.second.needed)

    def means(self) -> dict[str, float | None]:
        """Over the layers; None where the grids are too small to tell."""
        return {
            name: None if bool(values.isnan().all()) else round(float(values.nanmean()), 4)
            for name, values in self.measured.items()
        }

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        models = {
            name: {
                "model": one.name,
                "grid": one.grid,
                "depth": [round(x, 4) for x in one.depth],
                "roles": dict(zip(ROLES, [round(x, 4) for x in one.shares().tolist()], strict=True)),
                **{part: getattr(one, part).round(decimals=5).tolist() for part in ("time", "space", "frames")},
            }
            for name, one in (("first", self.first), ("second", self.second))
        }
        models["first"]["needed"], models["second"]["needed"] = (x.needed.as_json() for x in (self.first, self.second))
        layers = {name: [None if x != x else round(x, 4) for x in v.tolist()] for name, v in self.measured.items()}
        rank = self.rank_correlation
        found = {"means": self.means(), "layers": layers, "rank_correlation": None if rank is None else round(rank, 4)}
        return found | models


def are_of_two_models(first: AttentionStore, second: AttentionStore) -> bool:
    """Whether maps of one cannot be laid over those of the other because their models differ."""
    a, b = first.header, second.header
    return a.model != b.model or bool(a.kind and b.kind and a.kind != b.kind)


def figures_of(
    store: AttentionStore,
    selection: Selection | None = None,
    device: str | torch.device = "cpu",
    on_call: Callable[[], None] | None = None,
    on_chunk: Callable[[], None] | None = None,
) -> Figures:
    """The figures of a recording.

    Raises:
        SelectionError, StoreError: as `from_store`.
    """
    queries = auto_queries(store.header, device)
    observed = from_store(
        store, selection, Wanted().small(), queries, device=device, on_call=on_call, on_chunk=on_chunk
    )
    return Figures.of(observed, store.header.kind)


def compare_models(first: Figures, second: Figures) -> AcrossModels:
    """How alike two models' attention is."""
    other = [min(range(len(second.depth)), key=lambda i: abs(second.depth[i] - depth)) for depth in first.depth]
    pairs = list(enumerate(other))
    edge = min(first.frames.shape[-1], second.frames.shape[-1])
    a, b = (_preference(F.adaptive_avg_pool2d(one.frames, edge)) for one in (first, second))
    measured = {
        "time": [_curves(first.time[i], second.time[j]) for i, j in pairs],
        "space": [_curves(first.space[i], second.space[j]) for i, j in pairs],
        "frames": [_concordance(a[i].flatten(), b[j].flatten()) for i, j in pairs],
        "roles": [_overlap(first.roles[i], second.roles[j]) for i, j in pairs],
    }
    return AcrossModels(first, second, {name: torch.tensor(values).double() for name, values in measured.items()})


def compare_stores(
    stores: Sequence[AttentionStore],
    selection: Selection | None = None,
    device: str | torch.device = "cpu",
    on_call: Callable[[], None] | None = None,
    on_chunk: Callable[[], None] | None = None,
) -> list[AcrossModels]:
    """The first recording against each of the others; see `figures_of`."""
    first, *others = (figures_of(store, selection, device, on_call, on_chunk) for store in stores)
    return [compare_models(first, other) for other in others]


def verdict(
    found: AcrossModels, baseline: AcrossModels | None = None, *, published: Sequence[Published | None] = ()
) -> str:
    """The finding as a few sentences and a table (Markdown). published: a measurement of either model, if there is."""
    marks = None if baseline is None else baseline.means()
    heads = ["figure", "the two models", *(["two recordings of the first"] if marks else [])]
    rows = [
        [MEASURES[name], _number(value), *([_number(marks[name])] if marks else [])]
        for name, value in found.means().items()
    ]
    shares = [[one.name, *(f"{share:.0%}" for share in one.shares().tolist())] for one in (found.first, found.second)]
    ranked = {"the two models": found.rank_correlation}
    if baseline is not None:
        ranked["two recordings of the first"] = baseline.rank_correlation
    ranked |= {
        f"{name} and {one.name}, published": value for name, (one, value) in _with_published(found, published).items()
    }
    order = [ranking(ranked, found.first.needed.mass)]
    if found.first.shape != found.second.shape:
        shapes = " and ".join(f"{layers} x {heads}" for layers, heads in (found.first.shape, found.second.shape))
        order.append(f"The layers and heads of the two models cannot be paired: {shapes}.")
    models = f"First: {found.first.name}, on {found.first.grid}. Second: {found.second.name}, on {found.second.grid}."
    tables = markdown(heads, rows), markdown(("heads, share", *ROLES), shares)
    return "\n\n".join((f"{models} Layers are matched by relative depth; 1 is equal.", *tables, " ".join(order)))


def as_json(
    found: AcrossModels, baseline: AcrossModels | None = None, *, published: Sequence[Published | None] = ()
) -> str:
    """Everything that was found, as JSON."""
    whole: dict[str, Any] = {
        "verdict": verdict(found, baseline, published=published), "compared": found.as_json(),
        "published": {
            name: {"name": one.name, "rank_correlation": value}
            for name, (one, value) in _with_published(found, published).items()
        },
    }  # fmt: skip
    return json.dumps(whole if baseline is None else whole | {"baseline": baseline.as_json()}, indent=1)


def _with_published(
    found: AcrossModels, published: Sequence[Published | None]
) -> dict[str, tuple[Published, float | None]]:
    """Of either model that there is a measurement of: that, and the rank correlation of the heads with it."""
    pairs = zip(("first", "second"), (found.first, found.second), published, strict=False)
    return {name: (known, one.needed.rank_with(known)) for name, one, known in pairs if known is not None}


def _number(value: float | None) -> str:
    return "too small a grid" if value is None else f"{value:.2f}"


def _roles(observed: Observed, layer: int) -> Tensor:
    """Of each head, int64 (heads,)."""
    grid, found = observed.run.grid, observed.of_layer(layer)
    in_space = distance.uniform(distance.spatial(grid), grid)[:2].sum()
    frames = torch.stack([one.frames.value.double().mean(0) for one in found]).mean(0)
    near = torch.stack([one.spatial.value.double().mean(0)[..., :2].sum(-1) for one in found]).mean(0)
    own = frames.diagonal(dim1=-2, dim2=-1).mean(-1)
    later = frames[:, 1:, 0].mean(-1) if grid.frames > 1 else torch.zeros_like(own)
    preferred = torch.stack(
        [_above(near, float(in_space)), _above(own, 1 / grid.frames), _above(later, 1 / grid.frames)], dim=-1
    )
    held = torch.cat([preferred > 0.5, torch.ones_like(preferred[:, :1], dtype=torch.bool)], dim=-1)
    return held.int().argmax(-1)


def _above(mass: Tensor, uniform: float) -> Tensor:
    """How much of the attention that a map without preference puts elsewhere goes here: 0 none, 1 all."""
    return (mass - uniform) / max(1 - uniform, 1e-9)


def _preference(frames: Tensor) -> Tensor:
    """Rows that add up to 1, less a map without preference."""
    return frames / frames.sum(-1, keepdim=True).clamp(min=1e-12) - 1 / frames.shape[-1]


def _curves(a: Tensor, b: Tensor) -> float:
    """The concordance of two curves' logarithms over the distances that both have; nan of fewer than three."""
    shared = min(len(a), len(b))
    if shared < 3:
        return float("nan")
    return _concordance(*(x[:shared].clamp(min=_LEAST).log() for x in (a, b)))


def _concordance(a: Tensor, b: Tensor) -> float:
    """Lin's concordance correlation coefficient: 1 only if figures are equal, not if one is a multiple."""
    apart = a.mean() - b.mean()
    total = a.var(correction=0) + b.var(correction=0) + apart.square()
    covariance = ((a - a.mean()) * (b - b.mean())).mean()
    return float(2 * covariance / total) if total > 1e-12 else float("nan")


def _overlap(a: Tensor, b: Tensor) -> float:
    """The shares of roles that two layers have in common."""
    counts = [torch.bincount(x, minlength=len(ROLES)).double() / len(x) for x in (a, b)]
    return float(torch.minimum(*counts).sum())

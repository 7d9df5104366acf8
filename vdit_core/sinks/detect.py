"""Sinks found: which keys take outsized mass from nearly all queries, where they lie, and what they are like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..call import TokenGrid
from .record import MapSinks, SinkRecord

#: A sink's mass is at least so many times uniform, and given so evenly by the queries (see `measure`).
RATIO, PARTICIPATION = 16.0, 0.25
#: Shares of all attention on one key at which layer-heads are counted; 0.3 is what the literature on language models
#: calls a sink.
LIMITS = (0.3, 0.1, 0.03, 0.01)


@dataclass(frozen=True)
class Sink:
    """A key that a head sinks attention into, means over the calls.

    place: (frame, row, column), or None for a token without one.
    mass: its share of all attention. ratio: the same, to uniform. participation: see `measure`.
    key_norm, value_norm: to the median of all keys.
    present: the share of the calls in which it is among the strongest keys and its ratio is reached.
    """

    layer: int
    head: int
    token: int
    place: tuple[int, int, int] | None
    mass: float
    ratio: float
    participation: float
    key_norm: float
    value_norm: float
    present: float


@dataclass(frozen=True, eq=False)
class Findings:
    """All that a record says of sinks. Tables are float (layers, heads), in the order of `layers` and `heads`.

    peak: the largest mass of a key, as a ratio to uniform. peak_participation: of that key.
    half: how many keys hold half the mass. common: see `MapSinks`.
    frames: (layers, frames), the mass that each frame's keys get, mean over heads.
    above: by limit, the share of layer-heads with a key above it. joint: whether text attended together with the
    video's tokens, of which all this is.
    """

    grid: TokenGrid
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    ratio: float
    participation: float
    sinks: tuple[Sink, ...]
    peak: np.ndarray
    peak_participation: np.ndarray
    half: np.ndarray
    common: np.ndarray
    frames: np.ndarray
    above: dict[float, float]
    joint: bool = False

    def tokens(self) -> tuple[int, ...]:
        """All tokens that any head sinks attention into, rising."""
        return tuple(sorted({sink.token for sink in self.sinks}))

    def of(self, layer: int, head: int) -> list[Sink]:
        return [sink for sink in self.sinks if (sink.layer, sink.head) == (layer, head)]

    def sink_heads(self) -> list[tuple[int, int]]:
        """(layer, head) of all heads with a sink."""
        return sorted({(sink.layer, sink.head) for sink in self.sinks})

    def as_json(self) -> dict[str, Any]:
        """As JSON has it; tables by layer and head."""
        grid = self.grid
        return {
            "grid": {name: getattr(grid, name) for name in ("frames", "height", "width", "prefix", "suffix")},
            "layers": self.layers,
            "heads": self.heads,
            "a sink is": {"ratio to uniform": self.ratio, "participation": self.participation},
            "above": {f"{limit:g}": round(share, 4) for limit, share in self.above.items()},
            "sinks": [vars(sink) | {n: _plain(getattr(sink, n)) for n in _MEASURED} for sink in self.sinks],
            **{name: _rounded(getattr(self, name)) for name in _TABLES},
        }


_TABLES = ("peak", "peak_participation", "half", "common", "frames")
_MEASURED = ("mass", "ratio", "participation", "key_norm", "value_norm", "present")


def detect(record: SinkRecord, ratio: float = RATIO, participation: float = PARTICIPATION) -> Findings:
    """Find the sinks of a record.

    ratio: how many times uniform a sink's mass is at least. participation: how evenly queries give it at least.

    Raises:
        ValueError: if the record holds no call.
    """
    if not record.calls:
        raise ValueError("The record holds no call: nothing was measured.")
    grid = record.run.grid
    tables: dict[str, list[np.ndarray]] = {name: [] for name in _TABLES}
    sinks: list[Sink] = []
    for layer in record.layers:
        calls = record.of_layer(layer)
        means = record.mean_ratios(layer)
        tables["half"].append(_half(means))
        tables["frames"].append(_frames(means, grid))
        tables["common"].append(torch.stack([call.common for call in calls]).nanmean(0).numpy())
        tables["peak"].append(torch.stack([call.mass[:, 0] for call in calls]).mean(0).numpy() * grid.tokens)
        tables["peak_participation"].append(torch.stack([call.participation[:, 0] for call in calls]).mean(0).numpy())
        for index, head in enumerate(record.heads):
            sinks += _sinks(layer, head, index, calls, means[index].numpy(), grid, ratio, participation)
    peak = np.stack(tables["peak"])
    return Findings(
        grid=grid,
        layers=record.layers,
        heads=record.heads,
        ratio=ratio,
        participation=participation,
        sinks=tuple(sinks),
        joint=record.run.joint,
        above={limit: float((peak / grid.tokens >= limit).mean()) for limit in LIMITS},
        **{name: np.stack(table) for name, table in tables.items()},
    )


def _sinks(
    layer: int,
    head: int,
    index: int,
    calls: Sequence[MapSinks],
    means: np.ndarray,
    grid: TokenGrid,
    ratio: float,
    participation: float,
) -> list[Sink]:
    """The sinks of one head, the strongest first; means: of its coded ratios, (tokens,)."""
    seen: dict[int, list[np.ndarray]] = {}
    for call in calls:
        figures = torch.stack([call.mass, call.participation, call.key_norm, call.value_norm])[:, index].numpy().T
        for token, row in zip(call.tokens[index].tolist(), figures, strict=True):
            if row[0] * grid.tokens >= ratio / 4:
                seen.setdefault(token, []).append(row)
    found = []
    for token, rows in seen.items():
        table = np.stack(rows)
        # Where it was not among the strongest its coded mass stands for it.
        mass = float(table[:, 0].mean()) if len(rows) == len(calls) else float(means[token]) / grid.tokens
        even, key_norm, value_norm = (float(x) for x in table[:, 1:].mean(0))
        if mass * grid.tokens >= ratio and even >= participation:
            present = float((table[:, 0] * grid.tokens >= ratio).sum()) / len(calls)
            at = place(grid, token)
            found.append(Sink(layer, head, token, at, mass, mass * grid.tokens, even, key_norm, value_norm, present))
    return sorted(found, key=lambda sink: -sink.mass)


def place(grid: TokenGrid, token: int) -> tuple[int, int, int] | None:
    """Frame, row and column of a token; None if it has no place on the grid."""
    inner = token - grid.prefix
    if not 0 <= inner < grid.frames * grid.height * grid.width:
        return None
    frame, rest = divmod(inner, grid.height * grid.width)
    return (frame, *divmod(rest, grid.width))


def _half(means: torch.Tensor) -> np.ndarray:
    """How many keys hold half the mass, (heads,)."""
    falling = means.sort(dim=1, descending=True).values.cumsum(1)
    return (falling < falling[:, -1:] / 2).sum(1).add(1).numpy().astype(float)


def _frames(means: torch.Tensor, grid: TokenGrid) -> np.ndarray:
    """The share of the mass that each frame's keys get, mean over heads, (frames,)."""
    inner = means[:, grid.prefix : grid.tokens - grid.suffix].unflatten(1, (grid.frames, -1)).sum(-1)
    return (inner / means.sum(1, keepdim=True).clamp(min=1e-30)).mean(0).numpy()


def _plain(value: float) -> float | None:
    return round(value, 5) if np.isfinite(value) else None


def _rounded(table: np.ndarray) -> list[list[float | None]]:
    return [[_plain(float(value)) for value in row] for row in table]

"""What was measured of the keys of a run's maps: a byte for every key, and exact figures of the strongest ones."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..call import Run
from ..recording.store import Evaluation, Key
from .code import decode


@dataclass(frozen=True, eq=False)
class MapSinks:
    """Of the maps of one call. Tensors are on the CPU and begin with (heads,).

    codes: uint8 (.., tokens), the mass of every key as a ratio to uniform, coded (see `code`).
    tokens: int32 (.., strongest), the keys of the largest mass, falling; mass, participation: float32, theirs (see
    `measure`); mass is a share of all attention. key_norm, value_norm: float32, theirs as ratios to the median of all
    keys; of a recording without values, value_norm is nan. common: float32 (..), the share of the output's square that
    lies along its mean over queries: 1 if the head writes one and the same direction everywhere; or nan.
    """

    codes: Tensor
    tokens: Tensor
    mass: Tensor
    participation: Tensor
    key_norm: Tensor
    value_norm: Tensor
    common: Tensor

    def ratios(self, head: int) -> Tensor:
        """The mass of every key of a head, as a ratio to uniform: float32 (tokens,)."""
        return decode(self.codes[head])

    @property
    def nbytes(self) -> int:
        return sum(x.nbytes for x in vars(self).values())


@dataclass(eq=False)
class SinkRecord:
    """What was measured of a run. heads: which heads each call holds; queries: how many stood for all, None for all."""

    run: Run
    heads: tuple[int, ...]
    queries: int | None
    calls: dict[Key, MapSinks] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted({key.layer for key in self.calls}))

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """In the order of the run."""
        return tuple(dict.fromkeys(key.evaluation for key in self.calls))

    @property
    def branches(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(key.branch for key in self.calls))

    @property
    def nbytes(self) -> int:
        return sum(call.nbytes for call in self.calls.values())

    def of_layer(self, layer: int) -> list[MapSinks]:
        return [found for key, found in self.calls.items() if key.layer == layer]

    def mean_ratios(self, layer: int) -> Tensor:
        """The mass of every key of a layer, as a ratio to uniform, mean over calls: float32 (heads, tokens)."""
        calls = self.of_layer(layer)
        total = torch.zeros(calls[0].codes.shape)
        for call in calls:
            total += decode(call.codes)
        return total / len(calls)

    def __str__(self) -> str:
        queries = "all queries" if self.queries is None else f"{self.queries} sampled queries"
        return (
            f"sinks of {len(self.layers)} layers x {len(self.heads)} heads, {len(self.evaluations)} evaluations, "
            f"branches {' + '.join(self.branches)}, {self.run.grid}, {queries}, {self.nbytes / 2**20:.1f} MiB"
        )

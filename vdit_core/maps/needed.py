"""How many keys each head needs: the share that holds 95 % of a query's attention, and how alike heads rank by it.

Published measurements of sparse attention give this figure for each head of a model ("density"). It is a matter of
heads more than of steps or prompts, so two recordings are held against each other, and against such a measurement, by
the rank correlation of their heads (Spearman).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..attention.reference import rows
from ..call import TokenGrid
from ..ranks import rank_correlation
from ..recording.store import Header
from ..sparse import presets
from .observer import Observed
from .sampling import sample
from .wanted import Wanted


@dataclass(frozen=True, eq=False)
class Published:
    """A measurement of a model, float (layers, heads), as shares of the keys; name: of which model, in words."""

    name: str
    needed: np.ndarray

    @classmethod
    def of(cls, header: Header) -> Published | None:
        """The one that fits a recording's model, of the mass that is counted here; None if there is none."""
        found = presets.matching(header.model, header.kind, header.sigmas)
        return None if found is None or found.mass != Wanted.mass else cls(found.name, found.table())


@dataclass(frozen=True, eq=False)
class NeededKeys:
    """The share of the keys that each head needs, float64 (layers, heads), mean over samples, evaluations and branches.

    layers, heads: which ones. mass: the share of a query's attention. errors: an upper bound of the standard error, or
    None of all queries.
    """

    layers: tuple[int, ...]
    heads: tuple[int, ...]
    values: np.ndarray
    mass: float = Wanted.mass
    errors: np.ndarray | None = None

    @classmethod
    def of(cls, observed: Observed) -> NeededKeys:
        """Of an observed run: its maps share their queries, so a mean's error is at most the mean of the errors."""
        layers = tuple(observed.layers)
        found = [[call.needed for call in observed.of_layer(layer)] for layer in layers]
        values = np.stack([_mean([one.value for one in calls]) for calls in found])
        errors = [[one.error for one in calls if one.error is not None] for calls in found]
        known = np.stack([_mean(calls) for calls in errors]) if all(errors) else None
        return cls(layers, observed.heads, values, next(iter(observed.calls.values())).wanted.mass, known)

    def as_json(self) -> dict[str, Any]:
        """For a file: rows are layers."""
        found = {
            "mass": self.mass, "layers": list(self.layers), "heads": list(self.heads),
            "values": self.values.round(5).tolist(),
        }  # fmt: skip
        return found if self.errors is None else found | {"errors": self.errors.round(5).tolist()}

    def rank_correlation(self, other: NeededKeys) -> float | None:
        """Of the layers and heads that both have; None if these are too few to rank, or all equal."""
        layers, heads = ([n for n in getattr(self, name) if n in getattr(other, name)] for name in ("layers", "heads"))
        return rank_correlation(self._of(layers, heads), other._of(layers, heads))

    def rank_with(self, published: Published) -> float | None:
        """With a measurement of a model, which must have these layers and heads."""
        return rank_correlation(self.values, published.needed[np.ix_(self.layers, self.heads)])

    def _of(self, layers: Sequence[int], heads: Sequence[int]) -> np.ndarray:
        return self.values[np.ix_([self.layers.index(n) for n in layers], [self.heads.index(n) for n in heads])]


def needed_keys(
    q: Tensor, k: Tensor, grid: TokenGrid, wanted: Wanted | None = None, on_chunk: Callable[[], None] | None = None
) -> Tensor:
    """The share of the keys that each head needs, of `wanted.top_queries` random queries: float64 (heads,).

    q, k: (heads, tokens, head_dim). As `MapStatistics.needed`, without all other figures, anywhere torch runs.
    """
    wanted = wanted or Wanted()
    count = grid.tokens if wanted.top_queries is None else min(grid.tokens, wanted.top_queries)
    total = torch.zeros(len(q), dtype=torch.float64, device=q.device)
    for _, weights in rows(q, k, sample(grid, count, seed=0)):
        falling = weights.sort(-1, descending=True).values.cumsum(-1)
        total += ((falling < wanted.reached).sum(-1) + 1).clamp(max=grid.tokens).sum(-1)
        if on_chunk:
            on_chunk()
    return total / (count * grid.tokens)


def ranking(ranked: Mapping[str, float | None], mass: float = Wanted.mass) -> str:
    """In a sentence, how alike heads rank. ranked: the rank correlation of what each name says."""
    found = [f"{value:.2f} ({name})" for name, value in ranked.items() if value is not None]
    said = ", ".join(found) if found else "none, they cannot be ranked"
    return f"Rank correlation of the heads by the keys that hold {100 * mass:g} % of their attention: {said}."


def _mean(calls: Sequence[Tensor]) -> np.ndarray:
    """Over calls and samples, of (samples, heads): (heads,)."""
    return np.asarray(torch.cat(list(calls)).double().mean(0))

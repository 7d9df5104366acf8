"""The plain way through a map: its rows in chunks, all or some, anywhere torch runs.

Sums and sums of squares are kept of every figure, the rows are let go.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..attention import reference
from . import distance
from .estimate import Mean, Moments
from .figures import Figure
from .tables import Tables

MIN_ROWS = 128  # heads are taken together as long as a chunk holds so many rows of each


def heads_together(tokens: int) -> int:
    """Of how many heads the rows are taken together."""
    return max(1, reference.CHUNK_BYTES // (4 * MIN_ROWS * tokens))


class Sums:
    """One pass over the rows of a few heads' maps. q, k: (heads, tokens, head_dim), where the tables are."""

    tables: type[Tables] = Tables

    def __init__(self, q: Tensor, k: Tensor, tables: Tables) -> None:
        self.q, self.k, self.on = q, k, tables
        self.grid, self.wanted, self.queries = tables.grid, tables.wanted, tables.queries
        self.entropies: list[Tensor] = []
        self.begin()

    def begin(self) -> None:
        """Nothing is summed yet."""
        on, grid, tokens = self.on, self.grid, self.grid.tokens
        one = torch.tensor([tokens])
        placed = torch.tensor([grid.frames * grid.height * grid.width])
        per_frame = torch.full((grid.frames,), grid.height * grid.width)

        def mean(width: int, population: Tensor = one) -> Mean:
            return Mean(len(self.q), width, population, self.q.device)

        self.pooled = mean(on.columns, on.heights) if on.columns else None
        self.column_mass, self.entropy = mean(tokens), mean(1)
        self.frames, self.temporal = mean(grid.frames, per_frame), mean(grid.frames, placed)
        self.spatial = mean(on.distances, placed)

    def run(self, on_chunk: Callable[[], None]) -> dict[str, Figure]:
        """The figures, beginning with (heads,): `per_row` and `of_the_strongest`. Nothing waits for a GPU."""
        self.sum_rows(on_chunk)
        found = self.figures()
        return found | self.sum_strongest(on_chunk)

    def figures(self) -> dict[str, Figure]:
        """All but those of the strongest keys; those that nobody wants are left out."""
        sampled = self.on.sampled
        found: dict[str, Figure] = {
            name: getattr(self, name).moments(sampled) for name in ("frames", "temporal", "spatial", "entropy")
        }
        return found | self.of_tokens(
            self.column_mass.moments(sampled), self.pooled.moments(sampled) if self.pooled else None
        )

    def of_tokens(self, column_mass: Moments, pooled: Moments | None) -> dict[str, Figure]:
        """What grows with the tokens is estimated where it is: only what is wanted of it need reach the CPU."""
        mass = column_mass.estimate().map(lambda x: x[:, 0] * self.grid.tokens)
        found: dict[str, Figure] = {"largest": mass.at(mass.value.argmax(-1))}
        if pooled is not None:
            found["pooled"] = pooled.estimate().map(Tensor.float)
        if self.wanted.per_token:
            found |= {"column_mass": mass.map(Tensor.float), "entropies": torch.cat(self.entropies, dim=1)}
        return found

    def sum_rows(self, on_chunk: Callable[[], None]) -> None:
        """Fills what `figures` gives."""
        for queries, weights in reference.rows(self.q, self.k, self.queries):
            self._add(queries, weights)
            on_chunk()

    def sum_strongest(self, on_chunk: Callable[[], None]) -> dict[str, Figure]:
        """`top` and `needed`."""
        queries, _ = self.on.strongest
        tokens, reached = self.grid.tokens, self.wanted.reached
        found = []
        for _, weights in reference.rows(self.q, self.k, queries):
            falling = weights.sort(-1, descending=True).values.cumsum(-1)
            needed = ((falling < reached).sum(-1) + 1).clamp(max=tokens) / tokens
            found.append(torch.stack([*(falling[..., count - 1] for count in self.on.counts), needed], dim=-1))
            on_chunk()
        return self.strongest(torch.cat(found, dim=1))

    def strongest(self, values: Tensor) -> dict[str, Figure]:
        """values: (heads, queries, shares + 1), of each query the mass on its strongest keys, and the share of the keys
        that it needs."""
        tokens, sampled = self.grid.tokens, values.shape[1] < self.grid.tokens
        return {
            "top": Moments.of(values[..., :-1], tokens, sampled),
            "needed": Moments.of(values[..., -1:], tokens, sampled, skewed=True),
        }

    def _add(self, queries: Tensor, weights: Tensor) -> None:
        """queries: (c,); weights: (heads, c, tokens)."""
        grid, heads, count = self.grid, len(weights), len(queries)
        self.column_mass.add(weights)
        entropy = torch.special.entr(weights).sum(-1)
        self.entropies.append(entropy)
        self.entropy.add(entropy[..., None])
        if self.pooled is not None:
            pooled = weights.new_zeros(heads, count, self.on.columns).index_add_(2, self.on.column_of, weights)
            self.pooled.add(pooled / self.on.widths, self.on.row_of[queries])

        places = distance.places(grid)
        with_place = (queries >= places.start) & (queries < places.stop)
        if not bool(with_place.all()):
            queries, weights = queries[with_place], weights[:, with_place]
        frame = (queries - places.start) // (grid.height * grid.width)
        position = (queries - places.start) % (grid.height * grid.width)
        cube = weights[..., places].unflatten(-1, (grid.frames, -1))  # (heads, c, F, HW)
        by_frame, by_position = cube.sum(-1), cube.sum(-2)
        self.frames.add(by_frame, frame)
        self.temporal.add(by_distance(by_frame, self.on.frames_apart[frame], grid.frames))
        self.spatial.add(by_distance(by_position, self.on.apart[position], self.on.distances))


def by_distance(mass: Tensor, apart: Tensor, distances: int) -> Tensor:
    """mass: (heads, c, places); apart: how far each place is from each query, (c, places). (heads, c, distances)."""
    return mass.new_zeros(*mass.shape[:2], distances).scatter_add_(2, apart.expand_as(mass), mass)

"""Statistics of maps by GPU kernels: the same figures as the plain path's, without a map's rows in memory.

Exact, two passes over the map: one finds each query's lse and entropy and the masses between segments of tokens, from
which the pooled map and the frames follow; one sums the weights over queries, and over frames for the distances.
Sampled, likewise two passes over the few rows. The CPU waits for nothing that the GPU does, and launches little: what
all calls share lies there ready (`fused_tables`).
A part of a map, two passes over its queries: their lses, and their weights on its keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..attention.triton import column_mass as columns
from ..attention.triton import map_sums as kernels
from ..attention.triton import row_sums
from ..attention.triton.topk import strongest
from ..call import TokenGrid
from . import distance, segments
from .estimate import Moments, send
from .figures import Figure
from .fused_tables import FusedTables, Rows
from .sums import Sums, by_distance
from .wanted import Wanted

HEADS = 16  # taken together: bounds the memory of what is kept
_BYTES = 128 * 2**20  # of one buffer
_MIN_BLOCK = 16  # a finer pooled map would leave most of each tile empty
_MAX_PLACES = 8192  # in a frame: a kernel holds one row of them in registers
_MAX_SORTED = 131072  # likewise, of tokens (beyond 65536, in what it spills)


def suits(grid: TokenGrid, wanted: Wanted) -> bool:
    """Whether `FusedSums` can sum these figures of maps on this grid."""
    return grid.tokens >= _MIN_BLOCK * (wanted.pooled or 1) and grid.height * grid.width <= _MAX_PLACES


class FusedSums(Sums):
    """As its base, by kernels. q, k: as `gpu.kernels_take` wants them."""

    tables = FusedTables
    on: FusedTables

    def __init__(self, q: Tensor, k: Tensor, tables: FusedTables) -> None:
        super().__init__(*_in_rows(q, k), tables)
        self.lses: list[Tensor] = []

    def begin(self) -> None:
        if self.queries is None:
            super().begin()
            return
        grid, heads, device = self.grid, len(self.q), self.q.device
        width = 1 + 2 * grid.frames + self.on.distances  # entropy, frames, temporal, spatial
        self.of_rows = torch.zeros(2, heads, grid.frames + 2, width, dtype=torch.float64, device=device)
        self.of_keys = torch.zeros(2, heads, grid.tokens, dtype=torch.float64, device=device)
        self.of_blocks = torch.zeros(2, heads, self.on.rows, self.on.columns, dtype=torch.float64, device=device)

    def sum_rows(self, on_chunk: Callable[[], None]) -> None:
        if self.queries is None:
            self._all_rows(on_chunk)
            return
        size = self.grid.height * self.grid.width
        most = _BYTES // (4 * len(self.q) * max(size, 2 * len(self.on.key_segments)))
        for part in self.on.parts(max(64, most)):
            self._some_rows(part)
            on_chunk()

    def _all_rows(self, on_chunk: Callable[[], None]) -> None:
        q, k, grid, device = self.q, self.k, self.grid, self.q.device
        theirs = self.on.key_segments
        mine, tiles = segments.of_queries(grid, max(1, self.on.columns), kernels.MERGED.value)
        lse, entropy, masses = kernels.row_masses(
            q, k, self.on.key_edges, theirs.width, send(mine.edges, device), send(tiles, device)
        )
        self.lses.append(lse)
        self.entropies.append(entropy)
        self.entropy.add(entropy[..., None])
        on_chunk()
        masses = masses.double()
        if self.pooled is not None:
            pooled = _merge(masses, mine.block, theirs.block, self.on.columns) / self.on.widths
            self.pooled.add_sums(self.pooled.population, pooled)
            del pooled
        frames = _merge(masses, mine.frame, theirs.frame, grid.frames)
        del masses
        self.frames.add_sums(self.frames.population, frames)
        temporal = by_distance(frames, self.on.frames_apart, grid.frames).sum(1, keepdim=True)
        self.temporal.add_sums(self.temporal.population, temporal)

        places, size = distance.places(grid), grid.height * grid.width
        place = torch.arange(size, dtype=torch.int32, device=device)
        mass = torch.zeros(len(q), grid.tokens, dtype=torch.float64, device=device)
        for head in range(0, len(q), group := max(1, _BYTES // (4 * size**2))):
            some = slice(head, head + group)
            near, mass[some, places] = kernels.pairs(q[some, places], k[some, places], lse[some, places], grid.frames)
            apart = kernels.distances(near, place, grid.width, self.on.distances)
            self.spatial.sum[some] += apart.sum(1, keepdim=True, dtype=torch.float64)
            del near
            on_chunk()
        self.spatial.add_sums(self.spatial.population, torch.zeros_like(self.spatial.sum))
        if (beyond := self.on.beyond) is not None:
            mass += columns.column_mass(q[:, beyond], k, lse[:, beyond])[0]
            mass[:, beyond] += columns.column_mass(q[:, places], k[:, beyond], lse[:, places])[0]
        self.column_mass.add_sums(self.column_mass.population, mass[:, None])

    def _some_rows(self, part: Rows) -> None:
        on, grid, places = self.on, self.grid, distance.places(self.grid)
        q = self.q[:, part.queries]
        pieces, mean = row_sums.segments(q, self.k, on.key_edges, on.key_segments.width)
        lse, figures = row_sums.figures(pieces, mean, on.groups)
        self.lses.append(lse)
        self.entropies.append(figures[..., 0])
        del mean
        if on.columns:
            pooled = row_sums.pooled(pieces, lse, on.block_edges, on.widths, part.bin_edges, on.span)
            self.of_blocks += torch.stack(pooled)
        del pieces
        near, mass = row_sums.places(q, self.k[:, places], lse, grid.frames)
        self.of_keys[..., places] += mass.sum(2)
        if on.beyond is not None:
            self.of_keys[..., on.beyond] += torch.stack(columns.column_mass(q, self.k[:, on.beyond], lse))
        spatial = kernels.distances(near, part.position, grid.width, on.distances)
        del near, mass
        temporal = by_distance(figures[..., 1:], part.frames_apart, grid.frames)
        table = torch.cat([figures, temporal, spatial], dim=-1).double()
        self.of_rows[0] += part.into @ table
        self.of_rows[1] += part.into @ table.square()

    def figures(self) -> dict[str, Figure]:
        if self.queries is None:
            return super().figures()
        grid, on, frames = self.grid, self.on, self.grid.frames
        size = grid.height * grid.width
        count, population = on.count, torch.tensor([*[size] * frames, frames * size, grid.tokens], dtype=torch.float64)

        def moments(groups: slice, first: int, width: int) -> Moments:
            sums, squares = self.of_rows[:, :, groups, first : first + width]
            return Moments(sums, squares, count[groups], population[groups], True)

        each, placed, every = slice(0, frames), slice(frames, frames + 1), slice(frames + 1, frames + 2)
        found: dict[str, Figure] = {
            "entropy": moments(every, 0, 1),
            "frames": moments(each, 1, frames),
            "temporal": moments(placed, 1 + frames, frames),
            "spatial": moments(placed, 1 + 2 * frames, on.distances),
        }
        sums, squares = self.of_keys[:, :, None]
        column_mass, pooled = Moments(sums, squares, count[every], population[every], True), None
        if on.columns:
            sums, squares = self.of_blocks
            pooled = Moments(sums, squares, on.bin_count, on.heights.double(), True)
        return found | self.of_tokens(column_mass, pooled)

    def sum_strongest(self, on_chunk: Callable[[], None]) -> dict[str, Figure]:
        if self.grid.tokens > _MAX_SORTED:
            return super().sum_strongest(on_chunk)
        queries, which = self.on.strongest_there
        every = torch.cat(self.lses, dim=1)
        most = max(1, _BYTES // (4 * self.grid.tokens))  # rows of maps at once
        found = []
        for some, places in zip(queries.split(most), which.split(most), strict=True):
            q, lse = self.q[:, some], every[:, places]
            group = max(1, most // len(some))
            parts = []
            for head in range(0, len(q), group):
                heads = slice(head, head + group)
                rows = kernels.over_frames(q[heads], self.k[heads], lse[heads], 1)
                parts.append(strongest(rows, self.on.top_counts, self.wanted.reached))
                del rows
            found.append(torch.cat(parts))
            on_chunk()
        values = torch.cat(found, dim=1)
        values[..., -1] /= self.grid.tokens
        return self.strongest(values)


def weights(q: Tensor, k: Tensor, queries: Tensor, columns: slice) -> Iterator[tuple[Tensor, Tensor]]:
    """As `rows.weights`, on some keys only: queries and their weights on those, float32 (heads, c, keys).

    q, k: as `gpu.kernels_take` wants them. queries: (n,), on the CPU.
    """
    q, k = _in_rows(q, k)
    line = TokenGrid(1, 1, k.shape[1])  # segments that no frame parts
    keys = segments.of_keys(line, 1)
    keys_at = send(keys.edges, q.device)
    for part in queries.split(max(1, _BYTES // (8 * len(q) * len(range(k.shape[1])[columns])))):
        part = send(part, q.device)
        mine, tiles = segments.of_queries(TokenGrid(1, 1, len(part)), 1, kernels.MERGED.value)
        some = q[:, part]
        lse, _, _ = kernels.row_masses(some, k, keys_at, keys.width, send(mine.edges, q.device), send(tiles, q.device))
        yield part, kernels.over_frames(some, k[:, columns], lse, 1)


def _in_rows(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Contiguous in the last dimension, as the kernels read them."""
    q, k = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k))
    return q, k


def _merge(masses: Tensor, rows: Tensor, columns: Tensor, count: int) -> Tensor:
    """Sums over segments as sums over groups of them; a group beyond the last is left out.

    masses: float64 (heads, segments, segments'). rows, columns: each segment's group, on the CPU.
    Returns: (heads, count, count).
    """
    groups = torch.arange(count)
    into, onto = (send(x[:, None] == groups, masses.device).double() for x in (rows, columns))
    return into.mT @ (masses @ onto)

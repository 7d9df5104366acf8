"""Statistics of maps by GPU kernels: the same figures as the plain path's, without a map's rows in memory.

Exact, two passes over the map: one finds each query's lse and entropy and the masses between segments of tokens, from
which the pooled map and the frames follow; one sums the weights over queries, and over frames for the distances.
Sampled, three passes over the few rows: masses to segments, to places in a frame, and of each key.
A part of a map, two passes over its queries: their lses, and their weights on its keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..attention.triton import column_mass as columns
from ..attention.triton import map_sums as kernels
from ..attention.triton.topk import largest_sums
from ..call import TokenGrid
from . import distance, segments
from .estimate import send
from .sums import Sums, by_distance
from .wanted import Wanted

HEADS = 16  # taken together: bounds the memory of what is kept
_BYTES = 128 * 2**20  # of one buffer
_MIN_BLOCK = 16  # a finer pooled map would leave most of each tile empty
_MAX_PLACES = 8192  # in a frame: a kernel holds one row of them in registers
_MAX_SORTED = 131072  # likewise, of tokens (beyond 65536, in what it spills)


def suits(grid: TokenGrid, wanted: Wanted) -> bool:
    """Whether `FusedSums` can sum these figures of maps on this grid."""
    return grid.tokens >= _MIN_BLOCK * wanted.pooled and grid.height * grid.width <= _MAX_PLACES


class FusedSums(Sums):
    """As its base, by kernels. q, k: as `gpu.kernels_take` wants them."""

    def __init__(self, q: Tensor, k: Tensor, grid: TokenGrid, wanted: Wanted, queries: Tensor | None) -> None:
        q, k = _in_rows(q, k)
        super().__init__(q, k, grid, wanted, queries)
        self.key_segments = segments.of_keys(grid, len(self.widths))
        self.key_edges, self.key_blocks, self.key_frames = (
            send(x, q.device) for x in (self.key_segments.edges, self.key_segments.block, self.key_segments.frame)
        )
        self.lses: list[Tensor] = []

    def sum_rows(self, on_chunk: Callable[[], None]) -> None:
        if self.queries is None:
            self._all_rows(on_chunk)
            return
        size = self.grid.height * self.grid.width
        most = _BYTES // (4 * len(self.q) * max(size, len(self.key_segments)))
        for part in self.queries.split(max(64, most)):
            self._some_rows(part)
            on_chunk()

    def _all_rows(self, on_chunk: Callable[[], None]) -> None:
        q, k, grid, device = self.q, self.k, self.grid, self.q.device
        mine, tiles = segments.of_queries(grid, len(self.widths), kernels.MERGED.value)
        lse, entropy, masses = kernels.row_masses(
            q, k, self.key_edges, self.key_segments.width, send(mine.edges, device), send(tiles, device), each=False
        )
        self._keep(lse, entropy)
        on_chunk()
        masses = masses.double()
        pooled = _merge(masses, mine.block, self.key_segments.block, len(self.widths)) / self.widths
        self.pooled.add_sums(self.pooled.population, pooled)
        frames = _merge(masses, mine.frame, self.key_segments.frame, grid.frames)
        del masses, pooled
        self.frames.add_sums(self.frames.population, frames)
        temporal = by_distance(frames, self.frames_apart, grid.frames).sum(1, keepdim=True)
        self.temporal.add_sums(self.temporal.population, temporal)

        places, size = distance.places(grid), grid.height * grid.width
        place = torch.arange(size, dtype=torch.int32, device=device)
        mass = torch.zeros(len(q), grid.tokens, dtype=torch.float64, device=device)
        for head in range(0, len(q), group := max(1, _BYTES // (4 * size**2))):
            some = slice(head, head + group)
            near, mass[some, places] = kernels.pairs(q[some, places], k[some, places], lse[some, places], grid.frames)
            apart = kernels.distances(near, place, grid.width, self.distances)
            self.spatial.sum[some] += apart.sum(1, keepdim=True, dtype=torch.float64)
            del near
            on_chunk()
        self.spatial.count += self.spatial.population
        if grid.prefix or grid.suffix:
            every = torch.arange(grid.tokens)
            beyond = send(torch.cat([every[: places.start], every[places.stop :]]), device)
            mass += columns.column_mass(q[:, beyond], k, lse[:, beyond])[0]
            mass[:, beyond] += columns.column_mass(q[:, places], k[:, beyond], lse[:, places])[0]
        self.column_mass.add_sums(self.column_mass.population, mass[:, None])

    def _some_rows(self, queries: Tensor) -> None:
        """queries: (c,), on the CPU."""
        grid, device, count = self.grid, self.q.device, len(queries)
        places, size = distance.places(grid), grid.height * grid.width
        rows = send(queries, device)
        q, position = self.q[:, rows], (rows - places.start) % size
        edges = torch.arange(0, count + 64, 64, dtype=torch.int32, device=device).clamp(max=count)
        tiles = torch.arange(len(edges), dtype=torch.int32, device=device)
        # The long kernels first: while they run, the CPU launches the many short ones on what they find.
        lse, entropy, masses = kernels.row_masses(
            q, self.k, self.key_edges, self.key_segments.width, edges, tiles, each=True
        )
        mass = columns.column_mass(q, self.k, lse)
        near = kernels.over_frames(q, self.k[:, places], lse, grid.frames)
        apart = kernels.distances(near, position.int(), grid.width, self.distances)
        del near

        self._keep(lse, entropy)
        self.column_mass.add_sums(count, *(x[:, None] for x in mass))
        pooled = masses.new_zeros(*lse.shape, len(self.widths)).index_add_(2, self.key_blocks, masses)
        self.pooled.add(pooled.div_(self.widths), self.rows[rows])
        by_frame = masses.new_zeros(*lse.shape, grid.frames + 1).index_add_(2, self.key_frames, masses)[..., :-1]
        del masses, pooled
        placed = (queries >= places.start) & (queries < places.stop)
        if not placed.all():  # on the CPU: nothing waits for the GPU
            with_place = send(placed.nonzero()[:, 0], device)
            rows, by_frame, apart = rows[with_place], by_frame[:, with_place], apart[:, with_place]
        frame = (rows - places.start) // size
        self.frames.add(by_frame, frame)
        self.temporal.add(by_distance(by_frame, self.frames_apart[frame], grid.frames))
        self.spatial.add(apart)

    def _keep(self, lse: Tensor, entropy: Tensor) -> None:
        self.lses.append(lse)
        self.entropies.append(entropy)
        self.entropy.add(entropy[..., None])

    def sum_strongest(self, queries: Tensor, which: Tensor) -> None:
        if self.grid.tokens > _MAX_SORTED:
            super().sum_strongest(queries, which)
            return
        device = self.q.device
        q, lse = self.q[:, send(queries, device)], torch.cat(self.lses, dim=1)[:, send(which, device)]
        counts = send(torch.tensor(self.counts, dtype=torch.int32), device)
        group = max(1, _BYTES // (4 * len(queries) * self.grid.tokens))
        parts = (slice(head, head + group) for head in range(0, len(q), group))
        found = [largest_sums(kernels.over_frames(q[some], self.k[some], lse[some], 1), counts) for some in parts]
        self.top.add(torch.cat(found))


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
        lse, _, _ = kernels.row_masses(
            some, k, keys_at, keys.width, send(mine.edges, q.device), send(tiles, q.device), each=False
        )
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

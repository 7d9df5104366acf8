"""Where a head's attention goes, from queries and keys: streamed, never a whole map.

With w[i, j] the weight that query i gives to key j of the grid, in frames f and at places p = (y, x), what is summed is
the mass of each key, and the mass at each offset in time and space:

    offsets[g, d] = mean over i of the sum of w[i, j] over keys j with f_j - f_i = g and p_j - p_i = d

about eight numbers a token. All figures but the entropy and the first frame's share follow from these two.

That a head's queries find their own content again in other frames, and that its attention then moves as the video does,
is what DiffTrack (arXiv 2506.17220) and DiTFlow (arXiv 2412.07776) measure; HALO (arXiv 2607.11081) picks heads by
displacement and entropy. DiffTrack and DiTFlow follow each query's strongest key of a frame. Here all weights count,
summed by offset: a displacement may be a fraction of a token, and no map is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..attention import reference
from ..call import TokenGrid
from ..maps import distance
from ..maps.sampling import sample
from ..maps.statistics import check_queries
from ..maps.sums import heads_together

#: Keys at most so many tokens away, down and across, are still "at" a place.
NEAR = 1
#: The share of the keys whose mass `sinks` adds up.
STRONGEST = 0.01
#: Offsets that join fewer than this share of a frame's places do not count for the displacement: few pairs say little.
_OVERLAP = 0.25


@dataclass(frozen=True)
class HeadFigures:
    """Figures of heads, float32 on the CPU, (.., heads); those of mass are shares of a query's attention to the grid.

    own: on its own frame. near: on its own frame, at its own place. place: on other frames, at its own place. path: on
    other frames, at its own place moved by `displacement` for each frame between. ("At" a place: up to NEAR away.)
    first: on the first frame, of queries of later frames; 0 if there are none. sinks: on the STRONGEST share of the
    keys, which are the same for all queries. entropy: of its weights, as a share of the largest possible. text: the
    share of all attention that went to text beside the grid, 0 where there is none.
    displacement: (.., heads, 2), by how many tokens attention moves down and right from one frame to the next.
    match: of the mass on neighbouring frames, the part that is at the displaced place.
    """

    own: Tensor
    near: Tensor
    place: Tensor
    path: Tensor
    first: Tensor
    sinks: Tensor
    entropy: Tensor
    text: Tensor
    displacement: Tensor
    match: Tensor

    def items(self) -> Iterator[tuple[str, Tensor]]:
        return ((field.name, getattr(self, field.name)) for field in fields(self))

    def map(self, change: Callable[[Tensor], Tensor]) -> HeadFigures:
        return HeadFigures(**{name: change(value) for name, value in self.items()})


def head_figures(
    q: Tensor,
    k: Tensor,
    grid: TokenGrid,
    queries: int | None = None,
    seed: int = 0,
    on_chunk: Callable[[], None] | None = None,
) -> HeadFigures:
    """The figures of each head's map, (rows, heads).

    Args:
        q, k: (rows, heads, tokens, head_dim), any float dtype; computed in float32 at least, summed in float64.
        grid: of these tokens.
        queries: how many random queries stand for all; None for all. seed: which ones.
        on_chunk: called after each chunk, to show progress or to raise an interrupt.

    Raises:
        ValueError: if q, k and grid do not fit each other, or so many queries cannot be sampled.
    """
    if q.shape != k.shape or q.dim() != 4 or q.shape[2] != grid.tokens:
        raise ValueError(f"q {tuple(q.shape)} and k {tuple(k.shape)} are not (rows, heads, {grid.tokens}, head_dim).")
    if queries is not None:
        check_queries(grid, queries)
    chosen = None if queries is None else sample(grid, queries, seed)
    shape, group = q.shape[:2], heads_together(grid.tokens)
    parts = [
        _sums(some_q, some_k, grid, chosen, on_chunk or (lambda: None))
        for some_q, some_k in zip(q.flatten(0, 1).split(group), k.flatten(0, 1).split(group), strict=True)
    ]
    figures = {name: torch.cat([getattr(part, name) for part in parts]) for name, _ in parts[0].items()}
    return HeadFigures(**figures).map(lambda x: x.float().cpu().unflatten(0, shape))


def uniform(grid: TokenGrid) -> HeadFigures:
    """The figures of a map without preference, 0-D; its displacement (2,) is 0."""
    pairs = torch.ones(1, dtype=torch.float64)
    for length in (grid.frames, grid.height, grid.width):
        falling = length - torch.arange(1 - length, length, dtype=torch.float64).abs()
        pairs = pairs[..., None] * falling
    pairs, placed = pairs[0], grid.frames * grid.height * grid.width
    first = torch.full((1,), grid.height * grid.width / grid.tokens * (grid.frames > 1), dtype=torch.float64)
    mass = torch.full((1, grid.tokens), 1 / grid.tokens, dtype=torch.float64)
    figures = _figures(grid, pairs[None] / (placed * grid.tokens), pairs, mass, first, torch.ones_like(first))
    return figures.map(lambda x: x[0].float())


def _sums(q: Tensor, k: Tensor, grid: TokenGrid, queries: Tensor | None, on_chunk: Callable[[], None]) -> HeadFigures:
    """One pass over the rows of some heads' maps; q, k: (heads, tokens, head_dim)."""
    heads, (frames, height, width) = len(q), (grid.frames, grid.height, grid.width)
    places, size = distance.places(grid), height * width

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=q.device)

    spans = [2 * length - 1 for length in (frames, height, width)]
    offsets, pairs = zeros(heads, *spans), zeros(*spans)
    mass, entropy, first = zeros(heads, grid.tokens), zeros(heads), zeros(heads)
    count = placed = later = 0
    for part, weights in reference.rows(q, k, queries):
        mass += weights.sum(1, dtype=torch.float64)
        entropy += torch.special.entr(weights).sum((1, 2), dtype=torch.float64)
        count += len(part)
        cubes = weights[..., places].unflatten(-1, (frames, height, width))
        for n, token in enumerate(part.tolist()):
            if places.start <= token < places.stop:
                f, place = divmod(token - places.start, size)
                y, x = divmod(place, width)
                there = tuple(slice(n - 1 - at, 2 * n - 1 - at) for n, at in zip(
                    (frames, height, width), (f, y, x), strict=True))  # fmt: skip
                offsets[(slice(None), *there)] += cubes[:, n]
                pairs[there] += 1
                placed += 1
                if f:
                    first += cubes[:, n, 0].sum((1, 2))
                    later += 1
        on_chunk()
    most = max(torch.tensor(float(grid.tokens)).log().item(), 1e-9)
    return _figures(
        grid, offsets / max(1, placed), pairs, mass / count, first / max(1, later), entropy / (count * most)
    )


def _figures(
    grid: TokenGrid, offsets: Tensor, pairs: Tensor, mass: Tensor, first: Tensor, entropy: Tensor
) -> HeadFigures:
    """Figures (heads,) from sums of float64.

    offsets: (heads, 2F-1, 2H-1, 2W-1). pairs: how many query and key pairs each offset has, of that shape. mass:
    (heads, tokens), that of the mean query. first, entropy: as they are.
    """
    now = grid.frames - 1
    still = torch.zeros(len(offsets), 2, dtype=torch.float64, device=offsets.device)
    moved, match = still, torch.zeros_like(first)
    if grid.frames > 1:
        neighbours = _one_way(offsets)
        moved = _displacement(neighbours, _one_way(pairs[None])[0])
        whole = neighbours.sum((1, 2))
        match = _at(neighbours, moved) / whole.clamp(min=torch.finfo(whole.dtype).tiny)
    place, path = torch.zeros_like(first), torch.zeros_like(first)
    for gap in range(-now, now + 1):
        if gap:
            place = place + _at(offsets[:, now + gap], still)
            path = path + _at(offsets[:, now + gap], gap * moved)
    strongest = max(1, round(STRONGEST * grid.tokens))
    return HeadFigures(
        own=offsets[:, now].sum((1, 2)),
        near=_at(offsets[:, now], still),
        place=place,
        path=path,
        first=first,
        sinks=mass.topk(strongest).values.sum(-1),
        entropy=entropy,
        text=torch.zeros_like(first),
        displacement=moved,
        match=match,
    )


def _one_way(offsets: Tensor) -> Tensor:
    """What lies a frame ahead and, mirrored, a frame behind: (heads, 2H-1, 2W-1) of (heads, 2F-1, 2H-1, 2W-1)."""
    now = offsets.shape[1] // 2
    return offsets[:, now + 1] + offsets[:, now - 1].flip((1, 2))


def _displacement(mass: Tensor, pairs: Tensor) -> Tensor:
    """The offset that attention stands out at, (heads, 2), in tokens down and right.

    mass: at each offset, (heads, 2H-1, 2W-1). pairs: how many pairs of tokens are so far apart. Each offset d counts
    with the square of how far the mean weight there, mass / pairs, is above the mean of all: what stands out most
    decides, a level background does not, and the frame's borders do not pull.
    """
    trusted = pairs >= _OVERLAP * pairs.max()
    weight = torch.where(trusted, mass / pairs.clamp(min=1), 0)
    level = weight.sum((1, 2), keepdim=True) / trusted.sum()
    above = torch.where(trusted, (weight - level * (1 + 1e-3)).clamp(min=0), 0).square()
    down, across = (torch.arange(-(n // 2), n // 2 + 1, device=mass.device).double() for n in mass.shape[1:])
    total = above.sum((1, 2))
    moments = torch.stack([(above.sum(2) * down).sum(1), (above.sum(1) * across).sum(1)], dim=-1)
    return torch.where(total[:, None] > 0, moments / total[:, None].clamp(min=torch.finfo(total.dtype).tiny), 0)


def _at(mass: Tensor, place: Tensor) -> Tensor:
    """The mass up to NEAR tokens from a place, rounded: (heads,) of (heads, 2H-1, 2W-1) and (heads, 2)."""
    down, across = (torch.arange(-(n // 2), n // 2 + 1, device=mass.device) for n in mass.shape[1:])
    rows, columns = (
        (axis - place[:, n, None].round()).abs() <= NEAR for n, axis in enumerate((down, across))
    )  # (heads, 2H-1), (heads, 2W-1)
    return (mass * rows[:, :, None] * columns[:, None, :]).sum((1, 2))

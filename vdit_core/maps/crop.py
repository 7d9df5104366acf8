"""A part of a map, enlarged: some queries' weights on some keys, streamed from queries and keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..attention import reference
from . import gpu, sampling, sums


@dataclass(frozen=True)
class Crop:
    """A part of a map: queries `rows`, keys `columns`, each (first, behind the last).

    edge: a part with more rows or columns than this is pooled to so many; up to it every weight is kept.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    edge: int = 1024

    def check(self, tokens: int) -> None:
        """Raises ValueError if it is empty or reaches beyond the map."""
        for name, (first, end) in (("rows", self.rows), ("columns", self.columns)):
            if not 0 <= first < end <= tokens:
                raise ValueError(
                    f"The crop's {name} {first} to {end - 1} do not lie within the map's {tokens} tokens, 0 to "
                    f"{tokens - 1}."
                )


def map_crop(q: Tensor, k: Tensor, crop: Crop, on_chunk: Callable[[], None] | None = None) -> Tensor:
    """A part of the maps of queries and keys: every weight, or the mean of each block if it is pooled.

    Args:
        q, k: (rows, heads, tokens, head_dim), any float dtype; computed in float32.
        on_chunk: called after each chunk, to raise an interrupt.

    Returns:
        float32 on the CPU, (rows, heads, a, b) with a, b at most `crop.edge`.

    Raises:
        ValueError: if the crop does not lie within the map.
    """
    crop.check(k.shape[2])
    shape, (q, k) = q.shape[:2], (x.flatten(0, 1) for x in (q, k))
    fused = gpu.kernels_for(q, k)
    together = sums.heads_together(k.shape[1]) if fused is None else fused.HEADS
    queries, columns = torch.arange(*crop.rows), slice(*crop.columns)
    parts = []
    with torch.cuda.device_of(q):
        for head in range(0, len(q), together):
            some = q[head : head + together], k[head : head + together]
            chunks = _weights(*some, queries, columns) if fused is None else fused.weights(*some, queries, columns)
            parts.append(_pooled(chunks, len(some[0]), q.device, crop, on_chunk or (lambda: None)).float().cpu())
    return torch.cat(parts).unflatten(0, shape)


def _weights(q: Tensor, k: Tensor, queries: Tensor, columns: slice) -> Iterator[tuple[Tensor, Tensor]]:
    for part, weights in reference.rows(q, k, queries):
        yield part, weights[..., columns]


def _pooled(
    chunks: Iterator[tuple[Tensor, Tensor]],
    heads: int,
    device: torch.device,
    crop: Crop,
    on_chunk: Callable[[], None],
) -> Tensor:
    """The crop, float64 (heads, a, b), of its queries (c,) and their weights on its keys (heads, c, keys)."""
    blocks = [
        sampling.bins(end - first, min(end - first, crop.edge)).to(device) for first, end in (crop.rows, crop.columns)
    ]
    height, width = (torch.bincount(block) for block in blocks)
    total = torch.zeros(heads, len(height), len(width), dtype=torch.float64, device=device)
    for queries, weights in chunks:
        pooled = weights.new_zeros(*weights.shape[:2], len(width)).index_add_(2, blocks[1], weights)
        total.index_add_(1, blocks[0][queries - crop.rows[0]], pooled.double())
        del queries, weights, pooled  # before the next chunk is made
        on_chunk()
    return total.div_(height[:, None] * width)

"""Queries, keys and values in the order of tiles, with the means of their blocks: what patterns and kernels work on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .tiles import Tiles


@dataclass(frozen=True, eq=False)
class Tiled:
    """One attention call, reordered.

    q, k: (rows, heads, places, head_dim), zeros behind the last token up to a whole query block. v: (.., width).
    q_means: float32 (rows, heads, query blocks, head_dim); k_means: (rows, heads, key blocks, head_dim).
    """

    tiles: Tiles
    q: Tensor
    k: Tensor
    v: Tensor
    q_means: Tensor
    k_means: Tensor

    def back(self, ordered: Tensor) -> Tensor:
        """(rows, heads, places, width) in the host's order again: (rows, heads, tokens, width)."""
        tokens = self.tiles.grid.tokens
        rows, heads, _, width = ordered.shape
        out = ordered.new_empty(rows, tokens, heads, width).transpose(1, 2)  # as hosts join heads: no copy there
        return out.index_copy_(2, self.tiles.order.long(), ordered[:, :, :tokens])


def tile(q: Tensor, k: Tensor, v: Tensor, tiles: Tiles) -> Tiled:
    """q, k: (rows, heads, tokens, head_dim); v: (rows, heads, tokens, width)."""
    if q.is_cuda:
        try:
            from .kernels import triton_tiling  # imports Triton, which not every machine has
        except ImportError:
            pass
        else:
            if triton_tiling.takes(q, v):
                return triton_tiling.tile(q, k, v, tiles)
    q, k, v = (_ordered(x, tiles) for x in (q, k, v))
    return Tiled(tiles, q, k, v, _means(q, tiles, tiles.queries), _means(k, tiles, tiles.keys))


def _ordered(x: Tensor, tiles: Tiles) -> Tensor:
    return F.pad(x[:, :, tiles.order.long()], (0, 0, 0, -x.shape[2] % tiles.queries))


def _means(x: Tensor, tiles: Tiles, size: int) -> Tensor:
    tokens = tiles.grid.tokens
    sums = x.float().unflatten(2, (-1, size)).sum(3)[:, :, : -(-tokens // size)]
    counts = torch.full((sums.shape[2], 1), float(size), device=x.device)
    counts[-1] -= -tokens % size
    return sums / counts

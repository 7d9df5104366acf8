"""Queries, keys and values in the order of tiles, with the means of their blocks: what patterns and kernels work on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attention.triton import triton_works
from .tiling import Tiles


@dataclass(frozen=True, eq=False)
class Tiled:
    """One attention call, reordered.

    q, k: (rows, heads, places, head_dim). v: (.., width). Up to a whole query block, the last token is
    followed by zeros in q and v, and by itself in k.
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
        return out.index_copy_(2, self.tiles.permutation.long(), ordered[:, :, :tokens])


def tile(q: Tensor, k: Tensor, v: Tensor, tiles: Tiles) -> Tiled:
    """q, k: (rows, heads, tokens, head_dim); v: (rows, heads, tokens, width)."""
    if triton_works(q.device) and all(x.shape[-1] & (x.shape[-1] - 1) == 0 for x in (q, v)):
        from ..attention.triton.permute import permute  # imports Triton

        places = tiles.query_blocks * tiles.queries
        q, q_means = permute(q, tiles.permutation, tiles.queries, places, repeat=False)
        k, k_means = permute(k, tiles.permutation, tiles.keys, places, repeat=True)
        v, _ = permute(v, tiles.permutation, tiles.keys, places, repeat=False)
        return Tiled(tiles, q, k, v, q_means, k_means)
    q, k, v = _ordered(q, tiles), _ordered(k, tiles, repeat=True), _ordered(v, tiles)
    return Tiled(tiles, q, k, v, _means(q, tiles, tiles.queries), _means(k, tiles, tiles.keys))


def _ordered(x: Tensor, tiles: Tiles, repeat: bool = False) -> Tensor:
    ordered, missing = x[:, :, tiles.permutation.long()], -x.shape[2] % tiles.queries
    if repeat:
        return torch.cat([ordered, ordered[:, :, -1:].expand(-1, -1, missing, -1)], dim=2)
    return F.pad(ordered, (0, 0, 0, missing))


def _means(x: Tensor, tiles: Tiles, size: int) -> Tensor:
    tokens = tiles.grid.tokens
    whole = F.pad(x[:, :, :tokens].float(), (0, 0, 0, -tokens % size))
    sums = whole.unflatten(2, (-1, size)).sum(3)
    counts = torch.full((sums.shape[2], 1), float(size), device=x.device)
    counts[-1] -= -tokens % size
    return sums / counts

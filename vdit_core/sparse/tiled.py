"""Queries, keys and values in the order of tiles, with the means of their blocks: what patterns and kernels work on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attention.triton import triton_works
from .tiling import Tiles

_SMOOTHED_BY = 64  # every so many keys: their mean is near enough to that of all

_MIN_SCALE = 1e-12  # of int8, as the kernel's


@dataclass(frozen=True, eq=False)
class Lengths:
    """How long queries and keys are, float32: so a kernel knows how large a score can be.

    queries: (rows, heads, places). longest_key: (rows, heads).
    """

    queries: Tensor
    longest_key: Tensor


@dataclass(frozen=True, eq=False)
class Scales:
    """What int8 queries and keys are multiplied with, one for each token: float32 (rows, heads, places)."""

    queries: Tensor
    keys: Tensor


@dataclass(frozen=True, eq=False)
class Tiled:
    """One attention call, reordered.

    q, k: (rows, heads, places, head_dim). v: (.., width). Up to a whole query block, the last token is
    followed by zeros in q and v, and by itself in k.
    q_means: float32 (rows, heads, query blocks, head_dim); k_means: (rows, heads, key blocks, head_dim).
    scales: of int8 q and k, else None. lengths: known where the GPU kernels serve, else None.
    """

    tiles: Tiles
    q: Tensor
    k: Tensor
    v: Tensor
    q_means: Tensor
    k_means: Tensor
    scales: Scales | None = None
    lengths: Lengths | None = None

    def back(self, ordered: Tensor) -> Tensor:
        """(rows, heads, places, width) in the host's order again: (rows, heads, tokens, width)."""
        tokens = self.tiles.grid.tokens
        rows, heads, _, width = ordered.shape
        out = ordered.new_empty(rows, tokens, heads, width).transpose(1, 2)  # as hosts join heads: no copy there
        return out.index_copy_(2, self.tiles.permutation.long(), ordered[:, :, :tokens])


def tile(q: Tensor, k: Tensor, v: Tensor, tiles: Tiles, int8: bool = False) -> Tiled:
    """q, k: (rows, heads, tokens, head_dim); v: (rows, heads, tokens, width).

    int8: whether q and k are kept so, after SageAttention (arXiv 2410.02367): one scale for each token and head, and
    keys less their mean, which adds the same to all scores of a query and so changes no map.
    """
    less = k[:, :, ::_SMOOTHED_BY].mean(2, dtype=torch.float32) if int8 else None
    if triton_works(q.device) and all(x.shape[-1] & (x.shape[-1] - 1) == 0 for x in (q, v)):
        from ..attention.triton.permute import permute  # imports Triton

        places = tiles.query_blocks * tiles.queries
        queries = permute(q, tiles.permutation, tiles.queries, places, repeat=False, int8=int8)
        keys = permute(k, tiles.permutation, tiles.keys, places, repeat=True, int8=int8, less=less)
        values = permute(v, tiles.permutation, tiles.keys, places, repeat=False)
        return Tiled(
            tiles, queries.values, keys.values, values.values, queries.means, keys.means,
            None if queries.scale is None or keys.scale is None else Scales(queries.scale, keys.scale),
            Lengths(queries.norms, keys.norms.amax(-1)),
        )  # fmt: skip
    if less is not None:
        k = k.float() - less[:, :, None]
    q, k, v = _ordered(q, tiles), _ordered(k, tiles, repeat=True), _ordered(v, tiles)
    means = _means(q, tiles, tiles.queries), _means(k, tiles, tiles.keys)
    if not int8:
        return Tiled(tiles, q, k, v, *means)
    (q, of_q), (k, of_k) = _rounded(q), _rounded(k)
    return Tiled(tiles, q, k, v, *means, Scales(of_q, of_k))


def _rounded(x: Tensor) -> tuple[Tensor, Tensor]:
    """As int8, and the scales."""
    scale = (x.float().abs().amax(-1) / 127).clamp(min=_MIN_SCALE)
    return (x.float() / scale[..., None]).round().to(torch.int8), scale


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

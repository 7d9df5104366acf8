"""Tokens in another order, as they are or as int8, and what kernels want to know of them, in one pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Far above float32's least, so that NOTHING, the score of a key that is left out, stays far below all others with it.
MIN_SCALE = tl.constexpr(1e-12)
_ROUND = tl.constexpr(12582912.0)  # 1.5 x 2^23: added and taken away again, it rounds to the nearest whole number


@dataclass(frozen=True, eq=False)
class Permuted:
    """values: (rows, heads, places, dim). scale: of int8 ones, float32 (rows, heads, places), or None. means: float32
    (rows, heads, blocks, dim), of blocks of tokens. norms: float32 (rows, heads, places), the tokens' lengths."""

    values: Tensor
    scale: Tensor | None
    means: Tensor
    norms: Tensor


@triton.jit
def _permute(
    x_ptr, out_ptr, scale_ptr, means_ptr, norms_ptr, less_ptr, permutation_ptr, x_row, x_head, x_token,
    heads, tokens, blocks, places,
    DIM: tl.constexpr, SIZE: tl.constexpr, REPEAT: tl.constexpr, INT8: tl.constexpr, LESS: tl.constexpr,
):  # fmt: skip
    block, head, row = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    place, dims = block * SIZE + tl.arange(0, SIZE), tl.arange(0, DIM)
    inside = place < tokens
    token = tl.load(permutation_ptr + tl.minimum(place, tokens - 1)).to(tl.int64)
    x_ptr += row * x_row + head * x_head
    x = tl.load(x_ptr + token[:, None] * x_token + dims, mask=inside[:, None] | REPEAT, other=0.0)
    map = row * heads + head
    at = map * places + place
    wide = x.to(tl.float32)
    if LESS:
        wide -= tl.load(less_ptr + map * DIM + dims)[None, :]
    if block < blocks:
        count = tl.minimum(tokens - block * SIZE, SIZE)
        total = tl.sum(tl.where(inside[:, None], wide, 0.0), 0)
        tl.store(means_ptr + (map * blocks + block) * DIM + dims, total / count)
    if INT8:
        scale = tl.maximum(tl.max(tl.abs(wide), 1) / 127, MIN_SCALE)
        wide = (wide / scale[:, None] + _ROUND) - _ROUND
        tl.store(out_ptr + at[:, None] * DIM + dims, wide.to(tl.int8))
        tl.store(scale_ptr + at, scale)
        tl.store(norms_ptr + at, tl.sqrt(tl.sum(wide * wide, 1)) * scale)
    else:
        tl.store(out_ptr + at[:, None] * DIM + dims, x)
        tl.store(norms_ptr + at, tl.sqrt(tl.sum(wide * wide, 1)))


def permute(
    x: Tensor,
    permutation: Tensor,
    size: int,
    places: int,
    repeat: bool,
    int8: bool = False,
    less: Tensor | None = None,
) -> Permuted:
    """Reorder tokens, fill up to a number of places, and take the means of blocks of a size.

    Args:
        x: (rows, heads, tokens, dim), dim a power of 2. permutation: int32 (tokens,), the token at each place.
        size: of a block, a power of 2 that divides places. repeat: whether the last token fills up, or zeros.
        int8: whether values become int8 with one scale per token and head, so that none is off by more than half a
            scale; then less, float32 (rows, heads, dim), is subtracted first, from the means too.
    """
    x = x if x.stride(-1) == 1 else x.contiguous()
    rows, heads, tokens, dim = x.shape
    blocks = triton.cdiv(tokens, size)
    out = x.new_empty(rows, heads, places, dim, dtype=torch.int8 if int8 else x.dtype)
    means = x.new_empty(rows, heads, blocks, dim, dtype=torch.float32)
    norms = x.new_empty(rows, heads, places, dtype=torch.float32)
    scale = torch.empty_like(norms) if int8 else None
    with torch.cuda.device_of(x):
        _permute[(places // size, heads, rows)](
            x, out, norms if scale is None else scale, means, norms, means if less is None else less, permutation,
            *x.stride()[:3], heads, tokens, blocks, places,
            DIM=dim, SIZE=size, REPEAT=repeat, INT8=int8, LESS=int8 and less is not None,
        )  # fmt: skip
    return Permuted(out, scale, means, norms)

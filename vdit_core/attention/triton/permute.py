"""Tokens in another order, and the means of blocks of them, in one pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _permute(
    x_ptr, out_ptr, means_ptr, permutation_ptr, x_row, x_head, x_token, heads, tokens, blocks, places,
    DIM: tl.constexpr, SIZE: tl.constexpr, REPEAT: tl.constexpr,
):  # fmt: skip
    block, head, row = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    place, dims = block * SIZE + tl.arange(0, SIZE), tl.arange(0, DIM)
    inside = place < tokens
    token = tl.load(permutation_ptr + tl.minimum(place, tokens - 1)).to(tl.int64)
    x_ptr += row * x_row + head * x_head
    x = tl.load(x_ptr + token[:, None] * x_token + dims, mask=inside[:, None] | REPEAT, other=0.0)
    map = row * heads + head
    tl.store(out_ptr + (map * places + place[:, None]) * DIM + dims, x)
    if block < blocks:
        count = tl.minimum(tokens - block * SIZE, SIZE)
        total = tl.sum(tl.where(inside[:, None], x.to(tl.float32), 0.0), 0)
        tl.store(means_ptr + (map * blocks + block) * DIM + dims, total / count)


def permute(x: Tensor, permutation: Tensor, size: int, places: int, repeat: bool) -> tuple[Tensor, Tensor]:
    """Reorder tokens, fill up to a number of places, and take the means of blocks of a size.

    Args:
        x: (rows, heads, tokens, dim), dim a power of 2. permutation: int32 (tokens,), the token at each place.
        size: of a block, a power of 2 that divides places. repeat: whether the last token fills up, or zeros.

    Returns:
        (rows, heads, places, dim) of x's dtype, and float32 (rows, heads, blocks, dim).
    """
    x = x if x.stride(-1) == 1 else x.contiguous()
    rows, heads, tokens, dim = x.shape
    blocks = triton.cdiv(tokens, size)
    out = x.new_empty(rows, heads, places, dim)
    means = x.new_empty(rows, heads, blocks, dim, dtype=torch.float32)
    with torch.cuda.device_of(x):
        _permute[(places // size, heads, rows)](
            x,
            out,
            means,
            permutation,
            *x.stride()[:3],
            heads,
            tokens,
            blocks,
            places,
            DIM=dim,
            SIZE=size,
            REPEAT=repeat,
        )
    return out, means

"""The mass that each key of a map gets: each query's lse, then the weights summed over queries (Triton)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .online_softmax import NOTHING, advance, softmax_scale


@triton.jit
def _row_lse(
    q_ptr, k_ptr, lse_ptr, scale, q_head, q_row, k_head, k_row, rows, keys,
    DIM: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    dims, head = tl.arange(0, DIM), tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    q = tl.load(q_ptr + head * q_head + row[:, None] * q_row + dims, mask=(row < rows)[:, None], other=0.0)
    highest = tl.full((ROWS,), NOTHING, tl.float32)
    mass = tl.zeros((ROWS,), tl.float32)
    for start in range(0, keys, KEYS):
        key = start + tl.arange(0, KEYS)
        inside = key < keys
        k = tl.load(k_ptr + head * k_head + key[:, None] * k_row + dims, mask=inside[:, None], other=0.0)
        score = tl.where(inside[None, :], tl.dot(q, tl.trans(k)), NOTHING)
        highest, mass, _, _, _ = advance(score, highest, mass, scale)
    tl.store(lse_ptr + head * rows + row, highest + tl.log2(mass), mask=row < rows)


def row_lse(q: Tensor, k: Tensor) -> Tensor:
    """log2 of the sum of 2^x over keys, of each query: float32 (heads, rows). q, k: as `column_mass`."""
    heads, rows, dim = q.shape
    lse = q.new_empty(heads, rows, dtype=torch.float32)
    with torch.cuda.device_of(q):
        _row_lse[(triton.cdiv(rows, 64), heads)](
            q, k, lse, softmax_scale(dim), q.stride(0), q.stride(1), k.stride(0), k.stride(1),
            rows, k.shape[1], DIM=dim, ROWS=64, KEYS=64, num_warps=4, num_stages=3,
        )  # fmt: skip
    return lse


@triton.jit
def _column_mass(
    q_ptr, k_ptr, lse_ptr, sum_ptr, squares_ptr, scale, q_head, q_row, k_head, k_row, rows, keys,
    DIM: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    dims, head = tl.arange(0, DIM), tl.program_id(1).to(tl.int64)
    key = tl.program_id(0) * KEYS + tl.arange(0, KEYS)
    k = tl.load(k_ptr + head * k_head + key[:, None] * k_row + dims, mask=(key < keys)[:, None], other=0.0)
    total = tl.zeros((ROWS, KEYS), tl.float32)
    squares = tl.zeros((ROWS, KEYS), tl.float32)
    for start in range(0, rows, ROWS):
        row = start + tl.arange(0, ROWS)
        q = tl.load(q_ptr + head * q_head + row[:, None] * q_row + dims, mask=(row < rows)[:, None], other=0.0)
        lse = tl.load(lse_ptr + head * rows + row, mask=row < rows, other=float("inf"))  # beyond: weight 0
        weight = tl.exp2(tl.dot(q, tl.trans(k)) * scale - lse[:, None])
        total += weight
        squares += weight * weight
    tl.store(sum_ptr + head * keys + key, tl.sum(total, 0), mask=key < keys)
    tl.store(squares_ptr + head * keys + key, tl.sum(squares, 0), mask=key < keys)


def column_mass(q: Tensor, k: Tensor, lse: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The weights that each key gets, and their squares, summed over queries; as `reference.column_mass`.

    q: (heads, rows, d). k: (heads, keys, d), both contiguous in d, d 64 or 128. lse: float32 (heads, rows) of these
    queries, if they are known. Returns: float32 (heads, keys), twice.
    """
    if lse is None:
        lse = row_lse(q, k)
    heads, rows, dim = q.shape
    keys = k.shape[1]
    total, squares = q.new_empty(2, heads, keys, dtype=torch.float32)
    _column_mass[(triton.cdiv(keys, 64), heads)](
        q, k, lse.contiguous(), total, squares,
        softmax_scale(dim), q.stride(0), q.stride(1), k.stride(0), k.stride(1), rows, keys,
        DIM=dim, ROWS=64, KEYS=64, num_warps=4, num_stages=3,
    )  # fmt: skip
    return total, squares

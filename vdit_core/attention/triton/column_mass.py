"""Triton kernels for the mass that keys get: each query's norm, then sums over queries."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import map_sums as kernels

_NOTHING = tl.constexpr(-1e30)  # a score whose weight is 0; finite, so that none less none is 0


@triton.jit
def _norms(
    q_ptr, k_ptr, norm_ptr, scale, q_head, q_row, k_head, k_row, rows, keys,
    DIM: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    dims, head = tl.arange(0, DIM), tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    q = tl.load(q_ptr + head * q_head + row[:, None] * q_row + dims, mask=(row < rows)[:, None], other=0.0)
    top = tl.full((ROWS,), _NOTHING, tl.float32)
    mass = tl.zeros((ROWS,), tl.float32)
    for start in range(0, keys, KEYS):
        key = start + tl.arange(0, KEYS)
        inside = key < keys
        k = tl.load(k_ptr + head * k_head + key[:, None] * k_row + dims, mask=inside[:, None], other=0.0)
        score = tl.where(inside[None, :], tl.dot(q, tl.trans(k)), _NOTHING)
        higher = tl.maximum(top, tl.max(score, 1) * scale)
        mass = mass * tl.exp2(top - higher) + tl.sum(tl.exp2(score * scale - higher[:, None]), 1)
        top = higher
    tl.store(norm_ptr + head * rows + row, top + tl.log2(mass), mask=row < rows)


def columns(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """The weights that each key gets, and their squares, summed over queries.

    q: (heads, rows, d). k: (heads, keys, d), both contiguous in d, d 64 or 128. Returns: float32 (heads, keys), twice.
    """
    heads, rows, dim = q.shape
    norm = q.new_empty(heads, rows, dtype=torch.float32)
    with torch.cuda.device_of(q):
        _norms[(triton.cdiv(rows, 64), heads)](
            q, k, norm, math.log2(math.e) / math.sqrt(dim), q.stride(0), q.stride(1), k.stride(0), k.stride(1),
            rows, k.shape[1], DIM=dim, ROWS=64, KEYS=64, num_warps=4, num_stages=3,
        )  # fmt: skip
        return kernels.columns(q, k, norm)

"""GPU kernels (Triton) for some rows of maps, such as a random sample: two passes over the map keep only sums of them.

    w[i, j] = softmax(Q K^T / sqrt(d))[i, j] = 2^(x[i, j] - lse[i]),  x = log2(e) / sqrt(d) * q_i k_j

The rows are few, so keys are spread over programs too. The first pass takes each segment of keys by itself: of a row,
its own lse and the mean of x under its own softmax are all that the row's lse, its entropy and its masses need. The
second sums the weights, over frames and over rows. Queries and keys are as in `map_sums`; nothing is added atomically.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .online_softmax import NOTHING, softmax_scale

ROWS = 64  # queries of a tile
_LN2 = tl.constexpr(math.log(2))
_PROGRAMS = 1024  # at least so many keep a GPU busy; segments of keys are shared out among them


@triton.jit
def _segments(
    q_ptr, k_ptr, lse_ptr, mean_ptr, edges_ptr, scale, q_head, q_row, k_head, k_row, rows, segments, each,
    DIM: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    dims, head = tl.arange(0, DIM), tl.program_id(2).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = row < rows
    q = tl.load(q_ptr + head * q_head + row[:, None] * q_row + dims, mask=live[:, None], other=0.0)
    first = tl.program_id(1) * each
    for segment in range(first, tl.minimum(first + each, segments)):
        key = tl.load(edges_ptr + segment) + tl.arange(0, KEYS)
        inside = key < tl.load(edges_ptr + segment + 1)
        k = tl.load(k_ptr + head * k_head + key[:, None] * k_row + dims, mask=inside[:, None], other=0.0)
        x = tl.where(inside[None, :], tl.dot(q, tl.trans(k)) * scale, NOTHING)
        highest = tl.max(x, 1)
        weight = tl.exp2(x - highest[:, None])
        mass = tl.sum(weight, 1)
        at = (head * segments + segment) * rows + row
        tl.store(lse_ptr + at, highest + tl.log2(mass), mask=live)
        tl.store(mean_ptr + at, tl.sum(weight * x, 1) / mass, mask=live)


def segments(q: Tensor, k: Tensor, edges: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """What each row has in each segment of keys.

    Args:
        q: (heads, rows, d). k: (heads, tokens, d).
        edges: int32 (segments + 1,), where the segments begin, then the number of tokens.
        width: 16, 32, 64 or 128; no segment is wider.

    Returns:
        float32 (heads, segments, rows), twice: log2 of the sum of 2^x, and the mean of x, its weights 2^x.
    """
    heads, rows, dim = q.shape
    count, tiles = len(edges) - 1, triton.cdiv(rows, ROWS)
    each = max(1, min(count, count * tiles * heads // _PROGRAMS))
    lse, mean = q.new_empty(2, heads, count, rows, dtype=torch.float32)
    _segments[(tiles, triton.cdiv(count, each), heads)](
        q, k, lse, mean, edges, softmax_scale(dim), *q.stride()[:2], *k.stride()[:2], rows, count, each,
        DIM=dim, ROWS=ROWS, KEYS=width, num_warps=4, num_stages=3,
    )  # fmt: skip
    return lse, mean


@triton.jit
def _figures(
    part_ptr, mean_ptr, groups_ptr, lse_ptr, out_ptr, rows, segments, frames,
    ROWS: tl.constexpr, SEGMENTS: tl.constexpr,
):  # fmt: skip
    head, lanes = tl.program_id(1).to(tl.int64), tl.arange(0, SEGMENTS)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = row < rows
    part_ptr += head * segments * rows + row
    mean_ptr += head * segments * rows + row
    highest = tl.full((ROWS,), NOTHING, tl.float32)
    mass = tl.zeros((ROWS,), tl.float32)
    for start in range(0, segments, SEGMENTS):
        segment = start + lanes
        known = (segment < segments)[:, None] & live
        part = tl.load(part_ptr + segment[:, None] * rows, mask=known, other=NOTHING)
        higher = tl.maximum(highest, tl.max(part, 0))
        mass = mass * tl.exp2(highest - higher) + tl.sum(tl.exp2(part - higher), 0)
        highest = higher
    lse = highest + tl.log2(mass)
    tl.store(lse_ptr + head * rows + row, lse, mask=live)
    out_ptr += (head * rows + row) * (frames + 1)
    mean = tl.zeros((ROWS,), tl.float32)
    for group in range(frames + 2):  # what lies before the frames, each of them, and what lies behind
        first, end = tl.load(groups_ptr + group), tl.load(groups_ptr + group + 1)
        mass = tl.zeros((ROWS,), tl.float32)
        for start in range(first, end, SEGMENTS):
            segment = start + lanes
            known = (segment < end)[:, None] & live
            part = tl.load(part_ptr + segment[:, None] * rows, mask=known, other=NOTHING)
            weight = tl.exp2(part - lse)
            mass += tl.sum(weight, 0)
            mean += tl.sum(weight * tl.load(mean_ptr + segment[:, None] * rows, mask=known, other=0.0), 0)
        tl.store(out_ptr + group, mass, mask=live & (group > 0) & (group <= frames))
    tl.store(out_ptr, (lse - mean) * _LN2, mask=live)


def figures(part: Tensor, mean: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row: its lse, float32 (heads, rows); and float32 (heads, rows, 1 + frames), its entropy in nats and its
    mass in each frame.

    part, mean: as `segments` gives them. groups: int32 (frames + 3,), the first segment of what lies before the frames,
    of each frame, and of what lies behind, then their number.
    """
    heads, count, rows = part.shape
    frames = len(groups) - 3
    lse, out = part.new_empty(heads, rows), part.new_empty(heads, rows, 1 + frames)
    _figures[(triton.cdiv(rows, 16), heads)](
        part, mean, groups, lse, out, rows, count, frames, ROWS=16, SEGMENTS=16, num_warps=2
    )
    return lse, out


@triton.jit
def _pooled(
    part_ptr, lse_ptr, block_edges_ptr, widths_ptr, bin_edges_ptr, sum_ptr, squares_ptr, rows, segments, blocks, span,
    BLOCKS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    head, bin = tl.program_id(2).to(tl.int64), tl.program_id(1)
    block = tl.program_id(0) * BLOCKS + tl.arange(0, BLOCKS)
    known = block < blocks
    first = tl.load(block_edges_ptr + block, mask=known, other=0)
    end = tl.load(block_edges_ptr + block + 1, mask=known, other=0)
    width = tl.load(widths_ptr + block, mask=known, other=1.0)
    total, squares = tl.zeros((BLOCKS,), tl.float32), tl.zeros((BLOCKS,), tl.float32)
    last = tl.load(bin_edges_ptr + bin + 1)
    for start in range(tl.load(bin_edges_ptr + bin), last, ROWS):
        row = start + tl.arange(0, ROWS)
        live = row < last
        lse = tl.load(lse_ptr + head * rows + row, mask=live, other=0.0)
        mass = tl.zeros((BLOCKS, ROWS), tl.float32)
        for n in range(span):
            segment = first + n
            there = (segment < end)[:, None] & live
            at = part_ptr + (head * segments + segment[:, None]) * rows + row
            mass += tl.exp2(tl.load(at, mask=there, other=NOTHING) - lse)
        mean = mass / width[:, None]
        total += tl.sum(mean, 1)
        squares += tl.sum(mean * mean, 1)
    at = (head * tl.num_programs(1) + bin) * blocks + block
    tl.store(sum_ptr + at, total, mask=known)
    tl.store(squares_ptr + at, squares, mask=known)


def pooled(
    part: Tensor, lse: Tensor, block_edges: Tensor, widths: Tensor, bin_edges: Tensor, span: int
) -> tuple[Tensor, Tensor]:
    """Mean weights on blocks of keys, and their squares, summed over bins of rows: float32 (heads, bins, blocks) each.

    part: as `segments` gives it. lse: float32 (heads, rows). block_edges: int32 (blocks + 1,), the first segment of
    each block, then their number; span: no block has more segments. widths: float32 (blocks,), the keys of each.
    bin_edges: int32 (bins + 1,), the first row of each bin, then their number.
    """
    heads, count, rows = part.shape
    bins, blocks = len(bin_edges) - 1, len(widths)
    total, squares = part.new_empty(2, heads, bins, blocks)
    _pooled[(triton.cdiv(blocks, 32), bins, heads)](
        part, lse, block_edges, widths, bin_edges, total, squares, rows, count, blocks, span,
        BLOCKS=32, ROWS=32, num_warps=4,
    )  # fmt: skip
    return total, squares


@triton.jit
def _places(
    q_ptr, k_ptr, lse_ptr, near_ptr, sum_ptr, squares_ptr, scale, q_head, q_row, k_head, k_row, rows, frames, size,
    DIM: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    dims, head = tl.arange(0, DIM), tl.program_id(2).to(tl.int64)
    row, key = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1) * KEYS + tl.arange(0, KEYS)
    q = tl.load(q_ptr + head * q_head + row[:, None] * q_row + dims, mask=(row < rows)[:, None], other=0.0)
    lse = tl.load(lse_ptr + head * rows + row, mask=row < rows, other=float("inf"))  # beyond: weight 0
    k_ptr += head * k_head + key[:, None] * k_row + dims
    at = (head * tl.num_programs(0) + tl.program_id(0)) * frames * size + key
    near = tl.zeros((ROWS, KEYS), tl.float32)
    for frame in range(frames):
        k = tl.load(k_ptr + frame * size * k_row, mask=(key < size)[:, None], other=0.0)
        weight = tl.exp2(tl.dot(q, tl.trans(k)) * scale - lse[:, None])
        near += weight
        tl.store(sum_ptr + at + frame * size, tl.sum(weight, 0), mask=key < size)
        tl.store(squares_ptr + at + frame * size, tl.sum(weight * weight, 0), mask=key < size)
    at = near_ptr + (head * rows + row[:, None]) * size + key
    tl.store(at, near, mask=(row < rows)[:, None] & (key < size)[None, :])


def places(q: Tensor, k: Tensor, lse: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """The weights of some rows, summed over frames and over rows; the keys are frames of equal size.

    Args:
        q: (heads, rows, d). k: (heads, frames x size, d), may be a part of a larger tensor. lse: (heads, rows).

    Returns:
        float32: near (heads, rows, size), from each row to each place in a frame; sums (2, heads, tiles, tokens), over
        the rows of each tile of `ROWS`, of each key's weights and of their squares.
    """
    heads, rows, dim = q.shape
    tokens = k.shape[1]
    size, tiles = tokens // frames, triton.cdiv(rows, ROWS)
    near = q.new_empty(heads, rows, size, dtype=torch.float32)
    sums = q.new_empty(2, heads, tiles, tokens, dtype=torch.float32)
    _places[(tiles, triton.cdiv(size, 128), heads)](
        q, k, lse.contiguous(), near, sums[0], sums[1],
        softmax_scale(dim), q.stride(0), q.stride(1), k.stride(0), k.stride(1), rows, frames, size,
        DIM=dim, ROWS=ROWS, KEYS=128, num_warps=4, num_stages=3,
    )  # fmt: skip
    return near, sums

"""GPU kernels (Triton) that recompute the weights of maps tile by tile and keep only sums of them.

    w[i, j] = softmax(Q K^T / sqrt(d))[i, j] = 2^(x[i, j] - lse[i]),  x = log2(e) / sqrt(d) * q_i k_j

Queries and keys are bfloat16 or float16, (heads, tokens, head_dim) with head_dim 64 or 128 and contiguous in its last
dimension; products and sums are float32. A query's `lse`, log2 of the sum over keys of 2^x, is found once, by
`row_masses`; all others divide by it. No kernel adds atomically: the same inputs give the same figures.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .online_softmax import NOTHING, advance, softmax_scale

ROWS = 128  # queries of a tile of `row_masses`
MERGED = tl.constexpr(4)  # at most so many segments of queries share such a tile
_PER_PROCESSOR = 3  # programs of `row_masses` that fit on a multiprocessor at once
_LN2 = tl.constexpr(math.log(2))


@triton.jit
def _row_masses(
    q_ptr, k_ptr, lse_ptr, entropy_ptr, scratch_ptr, out_ptr, key_edges_ptr, row_edges_ptr, tiles_ptr,
    scale, q_head, q_row, k_head, k_row, rows, heads, key_segments, row_segments, tiles,
    DIM: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    dims, lanes = tl.arange(0, DIM), tl.arange(0, ROWS)
    scratch_ptr += tl.program_id(0).to(tl.int64) * key_segments * ROWS
    for tile in range(tl.program_id(0), tiles * heads, tl.num_programs(0)):
        head = (tile // tiles).to(tl.int64)
        first_segment = tl.load(tiles_ptr + tile % tiles)
        end_segment = tl.load(tiles_ptr + tile % tiles + 1)
        row = tl.load(row_edges_ptr + first_segment) + lanes
        live = row < tl.load(row_edges_ptr + end_segment)
        q = tl.load(q_ptr + head * q_head + row[:, None] * q_row + dims, mask=live[:, None], other=0.0)
        highest = tl.full((ROWS,), NOTHING, tl.float32)
        mass = tl.zeros((ROWS,), tl.float32)
        depth = tl.zeros((ROWS,), tl.float32)  # sum of 2^(x - highest) (x - highest)
        for segment in range(key_segments):
            first, end = tl.load(key_edges_ptr + segment), tl.load(key_edges_ptr + segment + 1)
            key = first + tl.arange(0, KEYS)
            inside = key < end
            k = tl.load(k_ptr + head * k_head + key[:, None] * k_row + dims, mask=inside[:, None], other=0.0)
            score = tl.where(inside[None, :], tl.dot(q, tl.trans(k)), NOTHING)
            before, mass_before = highest, mass
            highest, mass, shrink, below, weight = advance(score, highest, mass, scale)
            depth = shrink * (depth + mass_before * (before - highest)) + tl.sum(weight * below, 1)
            tl.store(scratch_ptr + segment * ROWS + lanes, highest + tl.log2(tl.sum(weight, 1)))
        lse = highest + tl.log2(mass)
        tl.store(lse_ptr + head * rows + row, lse, mask=live)
        tl.store(entropy_ptr + head * rows + row, (tl.log2(mass) - depth / mass) * _LN2, mask=live)

        tl.debug_barrier()  # what is read now was written by other threads of this program
        for start in range(0, key_segments, 16):
            segments = start + tl.arange(0, 16)
            known = segments < key_segments
            part = tl.load(scratch_ptr + segments[:, None] * ROWS + lanes, mask=known[:, None], other=float("-inf"))
            weight = tl.exp2(part - lse[None, :])
            for i in tl.static_range(MERGED):
                mine = first_segment + i
                if mine < end_segment:
                    within = (row >= tl.load(row_edges_ptr + mine)) & (row < tl.load(row_edges_ptr + mine + 1))
                    summed = tl.sum(tl.where(within[None, :], weight, 0.0), 1)
                    tl.store(out_ptr + (head * row_segments + mine) * key_segments + segments, summed, mask=known)
        tl.debug_barrier()


def row_masses(
    q: Tensor, k: Tensor, key_edges: Tensor, width: int, row_edges: Tensor, tiles: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The mass that segments of queries give to segments of keys.

    Args:
        q: (heads, rows, d). k: (heads, tokens, d).
        key_edges: int32 (segments + 1,), where the segments begin, then the number of tokens.
        width: 16, 32 or 64; no segment of keys is wider.
        row_edges: int32, likewise.
        tiles: int32, which segments of rows each tile begins with, then their number; the segments of a tile are at
            most `MERGED` and together at most `ROWS` wide.

    Returns:
        float32: lse (heads, rows); entropy (heads, rows) in nats; masses (heads, segments of rows, segments of keys).
    """
    heads, rows, dim = q.shape
    key_segments, row_segments, count = len(key_edges) - 1, len(row_edges) - 1, len(tiles) - 1
    # Tile sizes were tuned on an H200.
    programs = min(count * heads, 8 if not q.is_cuda else _PER_PROCESSOR * _processors(q.device))
    lse, entropy = q.new_empty(2, heads, rows, dtype=torch.float32)
    scratch = q.new_empty(programs, key_segments, ROWS, dtype=torch.float32)
    out = q.new_empty(heads, row_segments, key_segments, dtype=torch.float32)
    _row_masses[(programs,)](
        q, k, lse, entropy, scratch, out, key_edges, row_edges, tiles,
        softmax_scale(dim), *q.stride()[:2], *k.stride()[:2], rows, heads, key_segments, row_segments, count,
        DIM=dim, ROWS=ROWS, KEYS=width, num_warps=ROWS // 16, num_stages=2,
    )  # fmt: skip
    return lse, entropy, out


@triton.jit
def _pairs(
    q_ptr, k_ptr, lse_ptr, near_ptr, column_ptr, scale, q_head, q_row, k_head, k_row, frames, size, tokens,
    DIM: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    dims, head = tl.arange(0, DIM), tl.program_id(2).to(tl.int64)
    row, key = tl.program_id(1) * ROWS + tl.arange(0, ROWS), tl.program_id(0) * KEYS + tl.arange(0, KEYS)
    q_ptr += head * q_head + row[:, None] * q_row + dims
    k_ptr += head * k_head + key[:, None] * k_row + dims
    lse_ptr += head * tokens + row
    column_ptr += (head * tl.num_programs(1) + tl.program_id(1)) * frames * size + key
    near = tl.zeros((ROWS, KEYS), tl.float32)
    for theirs in range(frames):
        k = tl.load(k_ptr + theirs * size * k_row, mask=(key < size)[:, None], other=0.0)
        total = tl.zeros((ROWS, KEYS), tl.float32)
        for mine in range(frames):
            q = tl.load(q_ptr + mine * size * q_row, mask=(row < size)[:, None], other=0.0)
            lse = tl.load(lse_ptr + mine * size, mask=row < size, other=float("inf"))  # beyond: weight 0
            total += tl.exp2(tl.dot(q, tl.trans(k)) * scale - lse[:, None])
        tl.store(column_ptr + theirs * size, tl.sum(total, 0), mask=key < size)
        near += total
    at = near_ptr + (head * size + row[:, None]) * size + key
    tl.store(at, near, mask=(row < size)[:, None] & (key < size)[None, :])


def pairs(q: Tensor, k: Tensor, lse: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """The weights of all queries, summed over frames and over queries; tokens are frames of equal size.

    Args:
        q, k: (heads, tokens, d), may be parts of larger tensors. lse: (heads, tokens), contiguous.

    Returns:
        float32: near (heads, size, size), from a place in a frame to another, summed over the frames of both;
        mass (heads, tokens), summed over queries.
    """
    heads, tokens, dim = q.shape
    size = tokens // frames
    near = q.new_empty(heads, size, size, dtype=torch.float32)
    tiles = triton.cdiv(size, 64)
    mass = q.new_empty(heads, tiles, tokens, dtype=torch.float32)
    _pairs[(triton.cdiv(size, 128), tiles, heads)](
        q, k, lse.contiguous(), near, mass,
        softmax_scale(dim), q.stride(0), q.stride(1), k.stride(0), k.stride(1), frames, size, tokens,
        DIM=dim, ROWS=64, KEYS=128, num_warps=4, num_stages=3,
    )  # fmt: skip
    return near, mass.sum(1)


@triton.jit
def _over_frames(
    q_ptr, k_ptr, lse_ptr, out_ptr, scale, q_head, q_row, k_head, k_row, rows, frames, size,
    DIM: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    dims, head = tl.arange(0, DIM), tl.program_id(2).to(tl.int64)
    row, key = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1) * KEYS + tl.arange(0, KEYS)
    q = tl.load(q_ptr + head * q_head + row[:, None] * q_row + dims, mask=(row < rows)[:, None], other=0.0)
    lse = tl.load(lse_ptr + head * rows + row, mask=row < rows, other=0.0)
    k_ptr += head * k_head + key[:, None] * k_row + dims
    total = tl.zeros((ROWS, KEYS), tl.float32)
    for frame in range(frames):
        k = tl.load(k_ptr + frame * size * k_row, mask=(key < size)[:, None], other=0.0)
        total += tl.exp2(tl.dot(q, tl.trans(k)) * scale - lse[:, None])
    at = out_ptr + (head * rows + row[:, None]) * size + key
    tl.store(at, total, mask=(row < rows)[:, None] & (key < size)[None, :])


def over_frames(q: Tensor, k: Tensor, lse: Tensor, frames: int) -> Tensor:
    """The mass that each query gives to each place in a frame, summed over frames; with one frame, the map's rows.

    q: (heads, rows, d). k: (heads, frames x size, d). lse: (heads, rows). Returns: float32 (heads, rows, size).
    """
    heads, rows, dim = q.shape
    size = k.shape[1] // frames
    out = q.new_empty(heads, rows, size, dtype=torch.float32)
    _over_frames[(triton.cdiv(rows, 64), triton.cdiv(size, 128), heads)](
        q, k, lse.contiguous(), out,
        softmax_scale(dim), q.stride(0), q.stride(1), k.stride(0), k.stride(1), rows, frames, size,
        DIM=dim, ROWS=64, KEYS=128, num_warps=4, num_stages=3,
    )  # fmt: skip
    return out


@triton.jit
def _distances(mass_ptr, place_ptr, out_ptr, places, size, width, distances, PLACES: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at, there = tl.load(place_ptr + row % places), tl.arange(0, PLACES)
    down, across = there // width - at // width, there % width - at % width
    # Exact: both are integers far below 2^24, and the square root is rounded to nearest.
    apart = tl.floor(tl.sqrt_rn((down * down + across * across).to(tl.float32))).to(tl.int32)
    mass = tl.load(mass_ptr + row * size + there, mask=there < size, other=0.0)
    for distance in range(distances):
        tl.store(out_ptr + row * distances + distance, tl.sum(tl.where(apart == distance, mass, 0.0)))


def distances(mass: Tensor, place: Tensor, width: int, count: int) -> Tensor:
    """The mass at each distance within a frame, in token widths, rounded down.

    mass: float32 (heads, rows, size), to each place. place: int32 (rows,), each row's own. width: the frame's.
    Returns: float32 (heads, rows, count).
    """
    heads, rows, size = mass.shape
    out = mass.new_empty(heads, rows, count)
    block = triton.next_power_of_2(size)
    # Few warps a row: at each of its `count` sums they wait for one another.
    _distances[(heads * rows,)](
        mass, place, out, rows, size, width, count, PLACES=block, num_warps=max(1, min(16, block // 2048))
    )
    return out


def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count

"""Block-sparse attention by a Triton kernel, with queries and keys in half precision or as int8."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...attention.triton import triton_works
from ...attention.triton.online_softmax import NOTHING, softmax_scale
from ..block_mask import BlockMask
from ..tiled import Tiled

try:
    from triton.tools.tensor_descriptor import TensorDescriptor
except ImportError:  # a Triton of before it
    TensorDescriptor = None

#: Scores, as powers of 2, of which neither a weight nor a sum of them leaves float32's range: no maximum is needed.
_SAFE = tl.constexpr(100.0)
#: Which programs a launch computes: all; those whose scores are safe, by a loop without maxima; or the others.
ALL, SAFE, UNSAFE = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
_PARTS = 8  # a row's mass is summed in so many parts: threads exchange nothing until the end


@triton.jit
def _block(k_ptr, v_ptr, k_tiles, v_tiles, at, first, DIM: tl.constexpr, KEYS: tl.constexpr, TMA: tl.constexpr):
    if TMA:
        k, v = k_tiles.load([at + first, 0]), v_tiles.load([at + first, 0])
    else:
        place = (first + tl.arange(0, KEYS))[:, None] * DIM + tl.arange(0, DIM)
        k, v = tl.load(k_ptr + place), tl.load(v_ptr + place)
    return k, v


@triton.jit
def _scores(q, k, key_scale_ptr, first, tokens, KEYS: tl.constexpr, INT8: tl.constexpr):
    """Products of queries and keys, without the queries' scales; keys behind the last token are left out."""
    place = first + tl.arange(0, KEYS)
    beyond = tl.where(place < tokens, 0.0, NOTHING)
    score = tl.dot(q, tl.trans(k)).to(tl.float32)
    if INT8:
        score = score * tl.load(key_scale_ptr + place)[None, :] + beyond[None, :]
    else:
        score += beyond[None, :]
    return score


@triton.jit
def _attend(
    q_ptr, k_ptr, v_ptr, out_ptr, k_tiles, v_tiles, permutation_ptr, order_ptr, blocks_ptr, counts_ptr,
    scale_ptr, q_scale_ptr, k_scale_ptr, q_norm_ptr, k_norm_ptr,
    out_row, out_head, out_token, list_row, list_head, list_block, count_row, count_head, count_block,
    heads, query_blocks, tokens, places,
    DIM: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, PARTS: tl.constexpr, STAGES: tl.constexpr,
    INT8: tl.constexpr, WHICH: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    map, block = tl.load(order_ptr + program // query_blocks).to(tl.int64), program % query_blocks
    row, head = map // heads, map % heads
    k_ptr += map * places * DIM
    v_ptr += map * places * DIM
    k_scale_ptr += map * places
    dims, place = tl.arange(0, DIM), block * QUERIES + tl.arange(0, QUERIES)
    q = tl.load(q_ptr + map * places * DIM + place[:, None] * DIM + dims)
    scale = tl.load(scale_ptr + map)
    scales = tl.zeros((QUERIES,), tl.float32) + scale
    if INT8:
        scales *= tl.load(q_scale_ptr + map * places + place)
    list_ptr = blocks_ptr + row * list_row + head * list_head + block * list_block
    count = tl.load(counts_ptr + row * count_row + head * count_head + block * count_block)
    at = (map * places).to(tl.int32)  # of this map, in all maps' keys
    if WHICH != ALL:
        largest = tl.max(tl.load(q_norm_ptr + map * places + place), 0) * tl.load(k_norm_ptr + map) * scale
        count = tl.where((largest <= _SAFE) == (WHICH == SAFE), count, 0)
    total = tl.zeros((QUERIES, DIM), tl.float32)
    parts = tl.zeros((QUERIES, PARTS), tl.float32)
    highest = tl.full((QUERIES,), NOTHING, tl.float32)
    for i in tl.range(0, count, num_stages=STAGES):
        first = tl.load(list_ptr + i) * KEYS
        k, v = _block(k_ptr, v_ptr, k_tiles, v_tiles, at, first, DIM, KEYS, TMA)
        score = _scores(q, k, k_scale_ptr, first, tokens, KEYS, INT8)
        if WHICH == SAFE:
            weight = tl.exp2(score * scales[:, None])
        else:
            higher = tl.maximum(highest, tl.max(score, 1) * scales)
            weight = tl.exp2(score * scales[:, None] - higher[:, None])
            shrink = tl.exp2(highest - higher)
            highest = higher
            parts *= shrink[:, None]
            total *= shrink[:, None]
        parts += tl.sum(tl.reshape(weight, (QUERIES, KEYS // PARTS, PARTS)), 1)
        total = tl.dot(weight.to(v.dtype), v, total)
    inside = (place < tokens) & (count > 0)  # every list has a block: another launch computes the others
    token = tl.load(permutation_ptr + place, mask=inside, other=0).to(tl.int64)
    out_ptr += row * out_row + head * out_head
    out = (total / tl.sum(parts, 1)[:, None]).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + token[:, None] * out_token + dims, out, mask=inside[:, None])


class TritonBlocks:
    """NVIDIA GPUs of compute capability 8.0 and up, with Triton; half precision, heads 64 or 128 wide.

    int8: whether it wants queries and keys so (`tile`): half the bytes and twice the rate of their product.
    """

    def __init__(self, int8: bool = False) -> None:
        self.int8 = int8
        self.name = "Triton blocks, int8" if int8 else "Triton blocks"

    def refuses(self, q: Tensor) -> str | None:
        if q.dtype not in (torch.float16, torch.bfloat16) or q.shape[-1] not in (64, 128):
            return f"it takes float16 and bfloat16 heads 64 or 128 wide, not {q.dtype} heads {q.shape[-1]} wide"
        return None if triton_works(q.device) else "Triton does not work here"

    def __call__(self, call: Tiled, mask: BlockMask, sharpness: Tensor) -> Tensor:
        tiles, (rows, heads, places, dim) = call.tiles, call.q.shape
        assert call.lengths is not None
        out = call.v.new_empty(rows, tiles.grid.tokens, heads, call.v.shape[-1]).transpose(1, 2)  # as hosts join heads
        scale = (sharpness * softmax_scale(dim)).expand(rows, heads).contiguous()
        blocks, counts = (x.expand(rows, heads, *x.shape[2:]) for x in (mask.kv_indices, mask.kv_num_blocks))
        lengths, scales, int8 = call.lengths, call.scales, call.scales is not None
        of_q, of_k = (lengths.queries,) * 2 if scales is None else (scales.queries, scales.keys)
        order = mask.heaviest_first(rows, heads)
        # Where weights have float32's range, most programs need no maxima; the few others are launched after them.
        launches = (SAFE, UNSAFE) if call.v.dtype == torch.bfloat16 else (ALL,)
        with torch.cuda.device_of(call.q):
            for value, part in zip(call.v.split(dim, dim=-1), out.split(dim, dim=-1), strict=True):
                value = value.contiguous()
                for which in launches:
                    options = _options(call.q.device, int8, which is SAFE, dim, tiles.keys)
                    tiled = [call.k, value]
                    if options["TMA"]:
                        tiled = [TensorDescriptor.from_tensor(x.view(-1, dim), [tiles.keys, dim]) for x in tiled]
                    _attend[(tiles.query_blocks * rows * heads,)](
                        call.q, call.k, value, part, *tiled, tiles.permutation, order, blocks, counts,
                        scale, of_q, of_k, lengths.queries, lengths.longest_key,
                        *part.stride()[:3], *blocks.stride()[:3], *counts.stride(),
                        heads, tiles.query_blocks, tiles.grid.tokens, places,
                        DIM=dim, QUERIES=tiles.queries, KEYS=tiles.keys, PARTS=min(_PARTS, tiles.keys),
                        INT8=int8, WHICH=which, **options,
                    )  # fmt: skip
        return out


@lru_cache
def _options(device: torch.device, int8: bool, safe: bool, dim: int, keys: int) -> dict[str, Any]:
    about: Any = torch.cuda.get_device_properties(device)
    return tuned(about.major, about.shared_memory_per_block_optin, int8, safe, dim, keys)


def tuned(major: int, shared: int, int8: bool, safe: bool, dim: int, keys: int) -> dict[str, Any]:
    """How the kernel is compiled for GPUs of a major compute capability with so much shared memory for a program.

    Tuned on an H100; for others chosen so that the registers suffice, and compiled but not run.
    """
    if major != 9 or dim != 128:
        # Two stages fit the shared memory of a desktop GPU (99 KiB), three that of a larger one.
        stages = 3 if shared >= 2 * dim * (128 + 2 * 3 * keys) else 2
        options: dict[str, Any] = {"num_warps": 8 if dim == 128 else 4, "num_stages": stages}
    elif int8:
        options = {"num_warps": 4, "num_stages": 4}
    elif safe:
        options = {"num_warps": 8, "num_stages": 3, "maxnreg": 128}  # so two programs fit a multiprocessor
    else:
        options = {"num_warps": 4, "num_stages": 3}
    tma = major >= 9 and keys >= 8 and TensorDescriptor is not None
    return options | {"STAGES": options["num_stages"], "TMA": tma}

"""Block-sparse attention by a Triton kernel."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...attention.triton import triton_works
from ...attention.triton.online_softmax import NOTHING, advance, softmax_scale
from ..block_mask import BlockMask
from ..tiled import Tiled


@triton.jit
def _attend(
    q_ptr, k_ptr, v_ptr, out_ptr, permutation_ptr, blocks_ptr, counts_ptr, scale_ptr,
    out_row, out_head, out_token, list_row, list_head, list_block, count_row, count_head, count_block,
    heads, tokens, places, missing,
    DIM: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    block, map = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row, head = map // heads, map % heads
    q_ptr += map * places * DIM
    k_ptr += map * places * DIM
    v_ptr += map * places * DIM
    dims, lanes = tl.arange(0, DIM), tl.arange(0, KEYS)
    place = block * QUERIES + tl.arange(0, QUERIES)
    q = tl.load(q_ptr + place[:, None] * DIM + dims)
    scale = tl.load(scale_ptr + map)
    list_ptr = blocks_ptr + row * list_row + head * list_head + block * list_block
    count = tl.load(counts_ptr + row * count_row + head * count_head + block * count_block)
    highest = tl.full((QUERIES,), NOTHING, tl.float32)
    mass = tl.zeros((QUERIES,), tl.float32)
    total = tl.zeros((QUERIES, DIM), tl.float32)
    for i in tl.range(0, count, num_stages=STAGES):
        at = tl.load(list_ptr + i) * KEYS + lanes
        k = tl.load(k_ptr + at[:, None] * DIM + dims)
        highest, mass, shrink, _, weight = advance(tl.dot(q, tl.trans(k)), highest, mass, scale)
        v = tl.load(v_ptr + at[:, None] * DIM + dims)
        total = tl.dot(weight.to(v.dtype), v, total * shrink[:, None])
    # Every list has the last block. Keys missing there repeat the last token, over values of 0: all they add is mass.
    last = tl.load(k_ptr + (tokens - 1) * DIM + dims).to(tl.float32)
    mass -= missing * tl.exp2(tl.sum(q.to(tl.float32) * last[None, :], 1) * scale - highest)
    inside = place < tokens
    token = tl.load(permutation_ptr + place, mask=inside, other=0).to(tl.int64)
    out_ptr += row * out_row + head * out_head
    out = (total / mass[:, None]).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + token[:, None] * out_token + dims, out, mask=inside[:, None])


class TritonBlocks:
    """NVIDIA GPUs of compute capability 8.0 and up, with Triton; half quantization, heads 64 or 128 wide."""

    name = "Triton blocks"

    def refuses(self, q: Tensor) -> str | None:
        if q.dtype not in (torch.float16, torch.bfloat16) or q.shape[-1] not in (64, 128):
            return f"it takes float16 and bfloat16 heads 64 or 128 wide, not {q.dtype} heads {q.shape[-1]} wide"
        return None if triton_works(q.device) else "Triton does not work here"

    def __call__(self, call: Tiled, mask: BlockMask, sharpness: Tensor) -> Tensor:
        tiles, (rows, heads, places, dim) = call.tiles, call.q.shape
        values = call.v.split(dim, dim=-1)
        tokens = tiles.grid.tokens
        missing = -tokens % tiles.keys  # of the last block
        out = call.v.new_empty(rows, tokens, heads, call.v.shape[-1]).transpose(1, 2)  # as hosts join heads
        scale = (sharpness * (softmax_scale(dim))).expand(rows, heads).contiguous()
        blocks, counts = (x.expand(rows, heads, *x.shape[2:]) for x in (mask.kv_indices, mask.kv_num_blocks))
        # Tuned on an H100. Two stages fit the shared memory of a desktop GPU (99 KiB), three that of a larger one.
        device: Any = torch.cuda.get_device_properties(call.q.device)
        stages = 3 if device.shared_memory_per_block_optin >= 2 * dim * (tiles.queries + 2 * 3 * tiles.keys) else 2
        with torch.cuda.device_of(call.q):
            for value, part in zip(values, out.split(dim, dim=-1), strict=True):
                _attend[(tiles.query_blocks, rows * heads)](
                    call.q, call.k, value.contiguous(), part, tiles.permutation, blocks, counts, scale,
                    *part.stride()[:3], *blocks.stride()[:3], *counts.stride(), heads, tokens, places, missing,
                    DIM=dim, QUERIES=tiles.queries, KEYS=tiles.keys, STAGES=stages, num_warps=4, num_stages=stages,
                )  # fmt: skip
        return out

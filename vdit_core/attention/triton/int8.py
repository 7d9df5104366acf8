"""Queries and keys as int8 with a scale for every token and head, and back, each in one pass (Triton)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_NUMBERS = 4096  # of a tile
_TINY = tl.constexpr(torch.finfo(torch.float32).tiny)
_ROUNDS = tl.constexpr(1.5 * 2.0**23)  # a float32 of this size has no fraction: adding it rounds half to even


@triton.jit
def _pack(
    x_ptr, packed_ptr, scale_ptr, x_row, x_head, x_token, x_dim, heads, tokens, dim,
    TOKENS: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    head, row = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    token, dims = (tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)).to(tl.int64), tl.arange(0, DIM)
    inside = (token < tokens)[:, None] & (dims < dim)[None, :]
    at = x_ptr + row * x_row + head * x_head + token[:, None] * x_token + dims[None, :] * x_dim
    x = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.div_rn(tl.max(tl.abs(x), 1), 127.0), _TINY)
    scale = tl.where(tl.max((x != x).to(tl.int32), 1) > 0, float("nan"), scale)
    whole = (tl.div_rn(x, tl.broadcast_to(scale[:, None], (TOKENS, DIM))) + _ROUNDS) - _ROUNDS
    whole = tl.minimum(tl.maximum(whole, -127.0), 127.0)
    first = (row * heads + head) * tokens + token
    tl.store(packed_ptr + first[:, None] * dim + dims[None, :], whole.to(tl.int8), mask=inside)
    tl.store(scale_ptr + first, scale, mask=token < tokens)


def pack(x: Tensor) -> tuple[Tensor, Tensor]:
    """As `quantization.encode`, bit for bit.

    x: (rows, heads, tokens, dim), bfloat16, float16 or float32, of any strides.
    Returns: int8 of x's shape and float32 (rows, heads, tokens, 1), both contiguous.
    """
    rows, heads, tokens, dim = x.shape
    packed = x.new_empty(x.shape, dtype=torch.int8)
    scales = x.new_empty(rows, heads, tokens, 1, dtype=torch.float32)
    width = triton.next_power_of_2(dim)
    some = max(1, _NUMBERS // width)
    with torch.cuda.device_of(x):
        _pack[(triton.cdiv(tokens, some), heads, rows)](
            x, packed, scales, *x.stride(), heads, tokens, dim, TOKENS=some, DIM=width, num_warps=4
        )
    return packed, scales


@triton.jit
def _unpack(packed_ptr, scale_ptr, out_ptr, tokens, dim, TOKENS: tl.constexpr, DIM: tl.constexpr):
    token, dims = (tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)).to(tl.int64), tl.arange(0, DIM)
    inside = (token < tokens)[:, None] & (dims < dim)[None, :]
    at = token[:, None] * dim + dims[None, :]
    scale = tl.load(scale_ptr + token, mask=token < tokens, other=0.0)
    x = tl.load(packed_ptr + at, mask=inside, other=0).to(tl.float32) * scale[:, None]
    tl.store(out_ptr + at, x.to(out_ptr.dtype.element_ty), mask=inside)


def unpack(packed: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """What `pack` packed, in a dtype: contiguous (rows, heads, tokens, dim)."""
    packed, scales = packed.contiguous(), scales.contiguous()
    out = torch.empty_like(packed, dtype=dtype)
    dim, tokens = packed.shape[-1], scales.numel()
    width = triton.next_power_of_2(dim)
    some = max(1, _NUMBERS // width)
    with torch.cuda.device_of(packed):
        _unpack[(triton.cdiv(tokens, some),)](packed, scales, out, tokens, dim, TOKENS=some, DIM=width, num_warps=4)
    return out

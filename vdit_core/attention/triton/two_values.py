"""Attention with two values under one map: scores and softmax are computed once for both (Triton).

A map costs as much as what it does to one value, so two calls become one and a half. More values do not fit the
registers of a multiprocessor beside the scores.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .online_softmax import NOTHING, advance, softmax_scale

#: The first ones serve a data centre's GPU, the last ones the 99 KiB of shared memory that a desktop's has; which is
#: fastest is found once for each width of heads.
_SIZES = ((128, 64, 8, 3), (128, 64, 8, 2), (128, 32, 8, 3), (128, 32, 8, 2), (64, 32, 8, 2))
TILINGS = [
    triton.Config({"QUERIES": queries, "KEYS": keys}, num_warps=warps, num_stages=stages)
    for queries, keys, warps, stages in _SIZES
]


@triton.jit
def _take(q, k, first, second, highest, mass, one, two, inside, scale, MASKED: tl.constexpr):
    """One block of keys more; one, two: the values summed so far."""
    score = tl.dot(q, tl.trans(k))
    if MASKED:
        score = tl.where(inside[None, :], score, NOTHING)
    highest, mass, shrink, _, weight = advance(score, highest, mass, scale)
    rounded = weight.to(first.dtype)
    one = tl.dot(rounded, first, one * shrink[:, None])
    two = tl.dot(rounded, second, two * shrink[:, None])
    return highest, mass, one, two


@triton.jit
def _attend_two(
    q_ptr, k_ptr, first_ptr, second_ptr, one_ptr, two_ptr, scale,
    q_head, q_token, k_head, k_token, v_head, v_token, out_head, out_token, tokens, keys,
    DIM: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1).to(tl.int64)
    token = tl.program_id(0).to(tl.int64) * QUERIES + tl.arange(0, QUERIES)
    dims, lanes = tl.arange(0, DIM), tl.arange(0, KEYS)
    live = token < tokens
    q = tl.load(q_ptr + head * q_head + token[:, None] * q_token + dims, mask=live[:, None], other=0.0)
    k_at = k_ptr + head * k_head + lanes[:, None] * k_token + dims
    first_at = first_ptr + head * v_head + lanes[:, None] * v_token + dims
    second_at = second_ptr + head * v_head + lanes[:, None] * v_token + dims
    highest = tl.full((QUERIES,), NOTHING, tl.float32)
    mass = tl.zeros((QUERIES,), tl.float32)
    one = tl.zeros((QUERIES, DIM), tl.float32)
    two = tl.zeros((QUERIES, DIM), tl.float32)
    whole = keys // KEYS * KEYS
    for _ in range(0, whole, KEYS):
        k, first, second = tl.load(k_at), tl.load(first_at), tl.load(second_at)
        highest, mass, one, two = _take(q, k, first, second, highest, mass, one, two, lanes >= 0, scale, MASKED=False)
        k_at += KEYS * k_token
        first_at += KEYS * v_token
        second_at += KEYS * v_token
    if whole < keys:
        inside = whole + lanes < keys
        k = tl.load(k_at, mask=inside[:, None], other=0.0)
        first = tl.load(first_at, mask=inside[:, None], other=0.0)
        second = tl.load(second_at, mask=inside[:, None], other=0.0)
        highest, mass, one, two = _take(q, k, first, second, highest, mass, one, two, inside, scale, MASKED=True)
    at = head * out_head + token[:, None] * out_token + dims
    tl.store(one_ptr + at, (one / mass[:, None]).to(one_ptr.dtype.element_ty), mask=live[:, None])
    tl.store(two_ptr + at, (two / mass[:, None]).to(two_ptr.dtype.element_ty), mask=live[:, None])


_tuned = triton.autotune(TILINGS, key=["DIM"])(_attend_two)


def attend_two(
    q: Tensor,
    k: Tensor,
    values: tuple[Tensor, Tensor],
    outputs: tuple[Tensor, Tensor],
    tiling: triton.Config | None = None,
) -> None:
    """softmax(Q K^T / sqrt(d)) applied to two values.

    Args:
        q: (heads, tokens, dim). k, values: (heads, keys, dim); bfloat16 or float16, dim 64 or 128, contiguous in the
            last dimension; the values of one layout.
        outputs: of q's shape, written to; contiguous in the last dimension, of one layout.
        tiling: one of `TILINGS`; None finds the fastest here, once.
    """
    heads, tokens, dim = q.shape
    arguments = (
        q, k, *values, *outputs, softmax_scale(dim), *q.stride()[:2], *k.stride()[:2],
        *values[0].stride()[:2], *outputs[0].stride()[:2], tokens, k.shape[1],
    )  # fmt: skip
    if tiling is None:
        with torch.cuda.device_of(q):
            _tuned[lambda chosen: (triton.cdiv(tokens, chosen["QUERIES"]), heads)](*arguments, DIM=dim)
        return
    grid = (triton.cdiv(tokens, tiling.kwargs["QUERIES"]), heads)
    options = {"num_warps": tiling.num_warps, "num_stages": tiling.num_stages}
    _attend_two[grid](*arguments, DIM=dim, **tiling.kwargs, **options)

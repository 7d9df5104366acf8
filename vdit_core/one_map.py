"""Several values under one map: its softmax is computed once where that is faster than once for each value."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .gpu import triton_works
from .race import Race

_CHUNK_BYTES = 64 * 2**20
_race = Race()

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
Way = Callable[[Tensor, Tensor, Sequence[Tensor], Sequence[Tensor]], None]


def apply_map(q: Tensor, k: Tensor, values: Sequence[Tensor], outputs: Sequence[Tensor], attention: Attention) -> None:
    """softmax(Q K^T / sqrt(d)) applied to each of several values.

    On a GPU the ways to do it race once for each shape, `attention` for every value among them; elsewhere chunks of
    queries are taken to all keys.

    Args:
        q, k and each of values: (rows, heads, tokens, head_dim); values and outputs are each of one layout.
        outputs: written to. attention: computes softmax(Q K^T / sqrt(d)) V for one value.
    """
    if not q.is_cuda:
        return _by_chunks(q, k, values, outputs)

    def host(q: Tensor, k: Tensor, values: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        _one_by_one(q, k, values, outputs, attention)

    def pairs(q: Tensor, k: Tensor, values: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        _by_pairs(q, k, values, outputs, attention)

    ways: list[Way] = [pairs] if _pairs_take(q, k, values, outputs) else []
    ways += [_side_by_side] if _fused_takes(q, k, values[0]) else []
    ways += [host]
    kind = (len(values), q.shape, k.shape, q.dtype, q.device)
    times = _race.run(kind, [partial(way, q, k, values, outputs) for way in ways], q.device)
    return ways[times.index(min(times))](q, k, values, outputs)


def _one_by_one(
    q: Tensor, k: Tensor, values: Sequence[Tensor], outputs: Sequence[Tensor], attention: Attention
) -> None:
    for value, output in zip(values, outputs, strict=True):
        output.copy_(attention(q, k, value))


def _pairs_take(q: Tensor, k: Tensor, values: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
    if len(values) < 2 or q.dtype not in (torch.float16, torch.bfloat16) or q.shape[-1] not in (64, 128):
        return False
    of_one_layout = all(len({x.stride() for x in group}) == 1 for group in (values, outputs))
    rows_of_numbers = all(x.stride(-1) == 1 for x in (q, k, values[0], outputs[0]))
    return of_one_layout and rows_of_numbers and triton_works(q.device)


def _by_pairs(q: Tensor, k: Tensor, values: Sequence[Tensor], outputs: Sequence[Tensor], attention: Attention) -> None:
    """Two values at a time by this pack's own kernel; one that is left over by the host's attention."""
    from .gpu.two_values import attend_two  # imports Triton

    for i in range(0, len(values) - 1, 2):
        for row in range(len(q)):
            pair, written = ((x[i][row], x[i + 1][row]) for x in (values, outputs))
            attend_two(q[row], k[row], pair, written)
    left = len(values) // 2 * 2
    _one_by_one(q, k, values[left:], outputs[left:], attention)


def _fused_takes(q: Tensor, k: Tensor, v: Tensor) -> bool:
    return torch.backends.cuda.can_use_efficient_attention(
        torch.backends.cuda.SDPAParams(q, k, v, None, 0.0, False, False)
    )


def _side_by_side(q: Tensor, k: Tensor, values: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    """By PyTorch's memory-efficient attention, which takes values wider than queries."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.EFFICIENT_ATTENTION):
        wide = F.scaled_dot_product_attention(q, k, torch.cat(list(values), dim=-1))
    for part, output in zip(wide.split(q.shape[-1], dim=-1), outputs, strict=True):
        output.copy_(part)


def _by_chunks(q: Tensor, k: Tensor, values: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    """Chunks of queries against all keys, in bounded memory; in float32 at least, as fused kernels do it."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    queries = max(1, _CHUNK_BYTES // (dtype.itemsize * q.shape[0] * q.shape[1] * k.shape[2]))
    keys, wide = k.mT.to(dtype) / math.sqrt(q.shape[-1]), [value.to(dtype) for value in values]
    for first in range(0, q.shape[2], queries):
        part = slice(first, first + queries)
        weights = (q[:, :, part].to(dtype) @ keys).softmax(-1)
        for value, output in zip(wide, outputs, strict=True):
            output[:, :, part] = weights @ value

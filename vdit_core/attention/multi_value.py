"""Several values under one map: its softmax is computed once where that is faster than once for each value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from . import reference
from .autotune import Autotuner
from .triton import kernels_take

#: A host's attention: (q, k, v) -> output of v's shape; q, k and v alike in shape, unless its attribute `any_width` is
#: True: then v may be wider.
Backend = Callable[[Tensor, Tensor, Tensor], Tensor]

_Way = Callable[[Tensor, Tensor, Sequence[Tensor], Sequence[Tensor], Backend], None]

_autotuner = Autotuner()


def attend(q: Tensor, k: Tensor, v: Tensor, backend: Backend = F.scaled_dot_product_attention) -> Tensor:
    """The map of q and k applied to v.

    Args:
        q, k: (rows, heads, tokens, head_dim).
        v: (rows, heads, tokens, n * head_dim): n values under one map. n = 1 goes to `backend` as it is.

    Returns:
        A tensor of v's shape and dtype.
    """
    if v.shape[-1] == q.shape[-1]:
        return backend(q, k, v)
    if v.shape[-1] % q.shape[-1]:
        raise ValueError(f"Values {v.shape[-1]} wide do not split into heads {q.shape[-1]} wide.")
    output = torch.empty_like(v)
    apply_map(q, k, v.split(q.shape[-1], dim=-1), output.split(q.shape[-1], dim=-1), backend)
    return output


def attend_shared(q: Tensor, k: Tensor, v: Tensor, first: Sequence[int], backend: Backend) -> Tensor:
    """`attend` where some rows have the same q and k: their map is computed once, for all their values side by side.

    Args:
        q, k, v: (rows, heads, tokens, head_dim).
        first: for each row the first one with the same q and k; itself if there is none before.

    Returns:
        A tensor of v's shape and dtype.
    """
    alike: dict[int, list[int]] = {}
    for row, like in enumerate(first):
        alike.setdefault(like, []).append(row)
    output = torch.empty_like(v)
    for rows in (rows for rows in alike.values() if len(rows) > 1):
        values, outputs = ([x[row : row + 1] for row in rows] for x in (v, output))
        apply_map(q[rows[:1]], k[rows[:1]], values, outputs, backend)
    if alone := [rows[0] for rows in alike.values() if len(rows) == 1]:
        output[alone] = attend(q[alone], k[alone], v[alone], backend)
    return output


def apply_map(q: Tensor, k: Tensor, values: Sequence[Tensor], outputs: Sequence[Tensor], backend: Backend) -> None:
    """softmax(Q K^T / sqrt(d)) applied to each of several values.

    A backend for values of any width gets them side by side. Otherwise chunks of queries are taken to all keys, or, on
    a GPU, the fastest candidate for each shape, the backend for one value after the other among them.

    Args:
        q, k and each of values: (rows, heads, tokens, head_dim). outputs: like the values, written to.
    """
    if getattr(backend, "any_width", False):
        way: _Way = _side_by_side
    elif q.is_cuda:
        way = _fastest(q, k, values, outputs, backend)
    else:
        way = _by_chunks
    way(q, k, values, outputs, backend)


def _fastest(q: Tensor, k: Tensor, values: Sequence[Tensor], outputs: Sequence[Tensor], backend: Backend) -> _Way:
    ways: list[_Way] = [_one_by_one]
    if _efficient_takes(q, k, values[0]):
        ways.insert(0, _side_by_side_efficiently)
    if _pairs_take(q, k, values, outputs):
        ways.insert(0, _by_pairs)
    kind = (len(values), q.shape, k.shape, q.dtype, q.device)
    times = _autotuner.run(kind, [partial(way, q, k, values, outputs, backend) for way in ways], q.device)
    return ways[times.index(min(times))]


def _one_by_one(q: Tensor, k: Tensor, values: Sequence[Tensor], outputs: Sequence[Tensor], backend: Backend) -> None:
    for value, output in zip(values, outputs, strict=True):
        output.copy_(backend(q, k, value))


def _side_by_side(q: Tensor, k: Tensor, values: Sequence[Tensor], outputs: Sequence[Tensor], backend: Backend) -> None:
    """As one value that is wider than the queries."""
    wide = backend(q, k, torch.cat(list(values), dim=-1))
    for part, output in zip(wide.split(q.shape[-1], dim=-1), outputs, strict=True):
        output.copy_(part)


def _efficient_takes(q: Tensor, k: Tensor, v: Tensor) -> bool:
    params = torch.backends.cuda.SDPAParams(q, k, v, None, 0.0, False, False)
    return torch.backends.cuda.can_use_efficient_attention(params)


def _side_by_side_efficiently(
    q: Tensor, k: Tensor, values: Sequence[Tensor], outputs: Sequence[Tensor], backend: Backend
) -> None:
    """By PyTorch's memory-efficient attention, which takes any width."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.EFFICIENT_ATTENTION):
        _side_by_side(q, k, values, outputs, F.scaled_dot_product_attention)


def _pairs_take(q: Tensor, k: Tensor, values: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
    of_one_layout = all(len({x.stride() for x in group}) == 1 for group in (values, outputs))
    rows_of_numbers = all(x.stride(-1) == 1 for x in (q, k, values[0], outputs[0]))
    return len(values) > 1 and of_one_layout and rows_of_numbers and kernels_take(q, k)


def _by_pairs(q: Tensor, k: Tensor, values: Sequence[Tensor], outputs: Sequence[Tensor], backend: Backend) -> None:
    """Two values at a time by this pack's own kernel; one that is left over by the backend."""
    from .triton.two_values import attend_two  # imports Triton

    paired = len(values) // 2 * 2
    for i in range(0, paired, 2):
        for row in range(len(q)):
            pair, written = ((x[i][row], x[i + 1][row]) for x in (values, outputs))
            attend_two(q[row], k[row], pair, written)
    _one_by_one(q, k, values[paired:], outputs[paired:], backend)


def _by_chunks(q: Tensor, k: Tensor, values: Sequence[Tensor], outputs: Sequence[Tensor], backend: Backend) -> None:
    """Chunks of queries against all keys, in bounded memory; in float32 at least, as fused kernels do it."""
    wide = [value.to(torch.promote_types(q.dtype, torch.float32)) for value in values]
    for part, weights in reference.rows(q, k):
        for value, output in zip(wide, outputs, strict=True):
            output[:, :, part] = (weights @ value).to(output.dtype)

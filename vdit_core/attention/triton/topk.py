"""The largest numbers of each row, their places, their sum or how many they are: found by bisection instead of sorting
(Triton)."""

from __future__ import annotations

import struct

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_KEYS = 16384  # of a row whose places are wanted: a kernel holds it in registers


@triton.jit
def _bisect(order, free, wanted, low, high):
    """Between which two numbers the smallest of the `wanted` largest lies: as many as wanted, or more, reach `low`, and
    fewer reach `high`. Also returned: how many those are."""
    reach, exceed = tl.sum(free.to(tl.int32)), 0
    while (low + 1 < high) & (reach != wanted):
        middle = (low & high) + ((low ^ high) >> 1)  # their sum might not fit
        found = tl.sum((free & (order >= middle)).to(tl.int32))
        enough = found >= wanted
        low, high = tl.where(enough, middle, low), tl.where(enough, high, middle)
        reach, exceed = tl.where(enough, found, reach), tl.where(enough, exceed, found)
    return low, high, reach, exceed


@triton.jit
def _select(
    score_ptr, kept_ptr, first_ptr, counts_ptr, out_ptr, count_row, count_head, heads, lists, keys, first, most,
    KEYS: tl.constexpr, FIRST: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64)
    map = at // lists
    key, lead = tl.arange(0, KEYS), tl.arange(0, FIRST)
    inside = key < keys
    free = inside & (tl.load(kept_ptr + key, mask=inside, other=1) == 0)
    score = tl.load(score_ptr + at * keys + key, mask=inside, other=0.0)
    bits = score.to(tl.int32, bitcast=True)
    order = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # whole numbers in the order of the scores
    wanted = tl.load(counts_ptr + (map // heads) * count_row + (map % heads) * count_head) - first
    low = tl.min(tl.where(free, order, 0x7FFFFFFF))
    high = tl.max(tl.where(free, order, -0x7FFFFFFF)) + 1
    low, high, _, _ = _bisect(order, free, wanted, low, high)
    sure, edge = free & (order >= high), free & (order >= low) & (order < high)
    # Of equal scores at the edge the first ones count.
    room = wanted - tl.sum(sure.to(tl.int32))
    chosen = sure | (edge & (tl.cumsum(edge.to(tl.int32), 0) <= room))
    out_ptr += at * most
    tl.store(out_ptr + first + tl.cumsum(chosen.to(tl.int32), 0) - 1, key, mask=chosen)
    tl.store(out_ptr + lead, tl.load(first_ptr + lead, mask=lead < first, other=0), mask=lead < first)


def select(scores: Tensor, kept: Tensor, first: Tensor, counts: Tensor, most: int) -> Tensor:
    """Lists of the keys with the highest scores, behind keys that are kept anyway.

    Args:
        scores: float32 (rows, heads, lists, keys), finite, at most `MAX_KEYS` keys.
        kept: bool (keys,), those kept anyway.
        first: int32 (kept,), the same in the order in which every list begins.
        counts: int32 (rows, heads), the length of each list, those kept included; most: the largest of them.

    Returns:
        int32 (rows, heads, lists, most); behind its count a list holds 0.
    """
    rows, heads, lists, keys = scores.shape
    scores = scores.contiguous()
    out = torch.zeros(rows, heads, lists, most, dtype=torch.int32, device=scores.device)
    with torch.cuda.device_of(scores):
        _select[(rows * heads * lists,)](
            scores, kept.view(torch.uint8), first, counts, out, *counts.stride(), heads, lists, keys, len(first), most,
            KEYS=triton.next_power_of_2(keys), FIRST=triton.next_power_of_2(len(first)), num_warps=2,
        )  # fmt: skip
    return out


@triton.jit
def _reach(mass, order, wanted, low, high):
    """Between which two numbers the smallest of the fewest lies whose sum, the largest first, reaches `wanted`: those
    from `low` on do, those from `high` on do not. At last there is but one such number, or there are equal ones."""
    reach, exceed = tl.sum(tl.where(order >= low, mass, 0.0)), 0.0
    while (low + 1 < high) & (reach - exceed > 1.5 * low.to(tl.float32, bitcast=True)):
        middle = (low + high) >> 1  # of numbers from 0 to 1: it fits
        found = tl.sum(tl.where(order >= middle, mass, 0.0))
        enough = found >= wanted
        low, high = tl.where(enough, middle, low), tl.where(enough, high, middle)
        reach, exceed = tl.where(enough, found, reach), tl.where(enough, exceed, found)
    return low, high


@triton.jit
def _strongest(mass_ptr, counts_ptr, out_ptr, keys, shares, reached, least, KEYS: tl.constexpr):
    row, key = tl.program_id(0).to(tl.int64), tl.arange(0, KEYS)
    mass = tl.load(mass_ptr + row * keys + key, mask=key < keys, other=-1.0)
    order = mass.to(tl.int32, bitcast=True)  # of numbers from 0 as of their bits; -1 stays behind them all
    highest = tl.max(order) + 1
    out_ptr += row * (shares + 1)
    for share in range(shares):
        count = tl.load(counts_ptr + share)
        low = tl.min(tl.where(key < keys, order, highest))
        low, high, reach, exceed = _bisect(order, key < keys, count, low, highest)
        # Of those that reach `low` but not `high`, all equal if too many, only so many count.
        total = tl.sum(tl.where(order >= high, mass, 0.0))
        between = tl.sum(tl.where((order >= low) & (order < high), mass, 0.0))
        part = (count - exceed).to(tl.float32) / (reach - exceed).to(tl.float32)
        tl.store(out_ptr + share, total + between * part)

    wanted = tl.minimum(reached, tl.sum(tl.where(order >= least, mass, 0.0)))
    low, high = _reach(mass, order, wanted, least, highest)
    above, between = order >= high, (order >= low) & (order < high)
    lacking = wanted - tl.sum(tl.where(above, mass, 0.0))
    equal = tl.sum(between.to(tl.int32)).to(tl.float32)
    each = tl.sum(tl.where(between, mass, 0.0)) / equal
    more = tl.minimum(tl.maximum(tl.ceil(lacking / each), 1.0), equal)
    tl.store(out_ptr + shares, tl.sum(above.to(tl.int32)).to(tl.float32) + more)


def strongest(mass: Tensor, counts: Tensor, reached: float) -> Tensor:
    """The sums of each row's largest numbers; and how many of them, the largest first, reach a sum.

    mass: float32 (.., keys), 0 to 1, each row's sum 1 but for rounding, at most 131072 keys. counts: int32 (n,), how
    many are summed. reached: above 0 and below 1. Returns: float32 (.., n + 1), the count behind the sums.
    """
    keys = mass.shape[-1]
    block = triton.next_power_of_2(keys)
    out = mass.new_empty(*mass.shape[:-1], len(counts) + 1)
    # Smaller numbers make up at most half of what may be left out, so the bisection need not look there.
    (least,) = struct.unpack("i", struct.pack("f", (1 - reached) / (2 * keys)))  # its bits
    _strongest[(out[..., 0].numel(),)](
        mass, counts, out, keys, len(counts), reached, least,
        KEYS=block, num_warps=max(4, min(32, block // 1024)),
    )  # fmt: skip
    return out

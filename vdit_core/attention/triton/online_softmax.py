"""The online softmax, a block of keys at a time (Triton).

    weight = 2^(x - highest),  x = log2(e) / sqrt(d) * q k^T

`highest` is the largest x so far and `mass` the sum of the weights relative to it; at the end
lse = highest + log2(mass).
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

NOTHING = tl.constexpr(-1e30)  # a score whose weight is 0; finite, so that 0 times it, or itself less itself, is 0


@triton.jit
def advance(score, highest, mass, scale):
    """One block of scores more, before `scale`: (queries, keys).

    Returns the new highest and mass; the factor for what was summed relative to the old highest; x - highest; and the
    block's weights, 2 to the power of that.
    """
    higher = tl.maximum(highest, tl.max(score, 1) * scale)
    below = score * scale - higher[:, None]
    weight = tl.exp2(below)
    shrink = tl.exp2(highest - higher)
    return higher, mass * shrink + tl.sum(weight, 1), shrink, below, weight


def softmax_scale(dim: int) -> float:
    """What turns a product of a query and a key into x, for heads so wide."""
    return math.log2(math.e) / math.sqrt(dim)

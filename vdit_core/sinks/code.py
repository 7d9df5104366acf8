"""Masses of many keys in a byte each: logarithms in ninths of a doubling, right to 4 %.

code = round(9 log2(ratio)) + 101      ratio: to uniform; 0 for what is below 2^-11
"""

from __future__ import annotations

import torch
from torch import Tensor

PER_DOUBLING, UNIFORM = 9, 101


def encode(ratio: Tensor) -> Tensor:
    """Ratios, 0 and up, as uint8 of the same shape; at most 2^17."""
    return (ratio.clamp(min=1e-30).log2() * PER_DOUBLING + UNIFORM).round().clamp(0, 255).to(torch.uint8)


def decode(codes: Tensor) -> Tensor:
    """What was encoded, float32; 0 for code 0."""
    ratio = torch.exp2((codes.float() - UNIFORM) / PER_DOUBLING)
    return ratio.where(codes > 0, 0.0)

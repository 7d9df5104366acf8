"""The int8 kernels in Triton's interpreter, against the plain way; a program of its own, since Triton decides at its
import whether it interprets. Prints what differs; exits with how many cases do."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"
sys.path.insert(0, str(Path(__file__).parents[3]))

import torch

from vdit_core.attention.triton import int8
from vdit_core.recording.quantization import decode, encode

DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def laid_out(dtype: torch.dtype, dim: int = 128):
    """(rows, heads, tokens, dim), by how it lies in memory."""
    torch.manual_seed(dim)
    plain = (torch.randn(2, 3, 70, dim) * torch.rand(2, 3, 70, 1) * 9).to(dtype)
    yield "contiguous", plain
    yield "heads side by side", plain.transpose(1, 2).contiguous().transpose(1, 2)
    yield "tokens last", plain.transpose(2, 3).contiguous().transpose(2, 3)
    yield "some heads", plain[:, ::2]
    yield "every second number", plain[..., ::2]


def special(dtype: torch.dtype):
    x = torch.zeros(1, 1, 8, 64)
    x[0, 0, 1] = torch.arange(64) / 2 + 0.5  # halves: to even
    x[0, 0, 1, 63] = 127
    x[0, 0, 2] = 1e-30
    x[0, 0, 3, 5] = -127
    x[0, 0, 4] = torch.linspace(-6e4, 6e4, 64)
    x[0, 0, 5, 7] = math.inf
    yield "special values", x.to(dtype)


def wrong() -> list[str]:
    found = []
    for dtype in DTYPES:
        cases = [*laid_out(dtype), *(case for dim in (8, 48, 5) for case in laid_out(dtype, dim)), *special(dtype)]
        for name, x in cases:
            expected, scales = encode(x, "int8").values()
            packed, found_scales = int8.pack(x)
            finite = found_scales.isfinite().expand_as(packed)
            if not (torch.equal(packed[finite], expected[finite]) and torch.equal(found_scales, scales)):
                found.append(f"pack, {dtype}, {name}: {int((packed != expected).sum())} of {packed.numel()}")
            if not packed.is_contiguous() or packed.shape != x.shape:
                found.append(f"pack, {dtype}, {name}: {packed.shape}, {packed.stride()}")
            out = int8.unpack(expected, scales, torch.float32)
            plain = decode({"": expected, ".scale": scales}, torch.float32)
            if not torch.equal(out.nan_to_num(0.5), plain.nan_to_num(0.5)):
                found.append(f"unpack, {dtype}, {name}")
    one = torch.full((1, 1, 2, 16), 2.0)
    one[0, 0, 0, 3] = math.nan
    if int8.pack(one)[1].isnan().flatten().tolist() != [True, False]:
        found.append("a token with a number that is none does not say so")
    return found


if __name__ == "__main__":
    differing = wrong()
    print("\n".join(differing))
    sys.exit(len(differing))

"""Run by `test_int8_kernel`: the int8 kernels in Triton's interpreter, against the plain way."""

from __future__ import annotations

import math

import pytest
import torch
from triton_interpreter import mend

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


def cases(dtype: torch.dtype):
    yield from laid_out(dtype)
    for dim in (8, 48, 5):
        yield from laid_out(dtype, dim)
    yield from special(dtype)


@pytest.fixture(autouse=True)
def mended():
    mend()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def check_packing_and_unpacking(dtype):
    for name, x in cases(dtype):
        expected, scales = encode(x, "int8").values()
        packed, found_scales = int8.pack(x)
        finite = found_scales.isfinite().expand_as(packed)
        assert torch.equal(packed[finite], expected[finite]), name
        assert torch.equal(found_scales, scales), name
        assert packed.is_contiguous(), name
        out = int8.unpack(expected, scales, torch.float32)
        plain = decode({"": expected, ".scale": scales}, torch.float32)
        assert torch.equal(out.nan_to_num(0.5), plain.nan_to_num(0.5)), name


def check_a_token_with_a_number_that_is_none_says_so():
    one = torch.full((1, 1, 2, 16), 2.0)
    one[0, 0, 0, 3] = math.nan
    assert int8.pack(one)[1].isnan().flatten().tolist() == [True, False]

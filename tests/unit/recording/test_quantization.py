from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from vdit_core.recording import quantization


@given(st.integers(0, 2**20), st.floats(1e-3, 1e3))
def test_int8_is_off_by_half_a_step_at_most(seed, size):
    x = size * torch.randn(2, 3, 5, 16, generator=torch.Generator().manual_seed(seed))
    parts = quantization.encode(x, "int8")
    error = (quantization.decode(parts, torch.float32) - x).abs()
    assert (error <= parts[".scale"] * 0.5001).all()


def test_zeros_stay_zeros_and_exact_is_exact():
    zeros = torch.zeros(1, 1, 2, 4)
    assert torch.equal(quantization.decode(quantization.encode(zeros, "int8"), torch.float32), zeros)
    x = torch.randn(1, 2, 3, 4, dtype=torch.bfloat16)
    assert torch.equal(quantization.decode(quantization.encode(x, "none"), torch.bfloat16), x)


def test_the_layout_foretells_what_is_made():
    x = torch.randn(2, 3, 5, 16).half()
    for name in quantization.QUANTIZATIONS:
        parts = quantization.encode(x, name)
        made = {suffix: (tuple(part.shape), part.dtype) for suffix, part in parts.items()}
        assert made == quantization.layout(tuple(x.shape), x.dtype, name)


def test_views_are_packed_as_whole_tensors():
    """Hosts hand on transposed views; a file takes contiguous tensors only."""
    x = torch.randn(2, 5, 3, 16).transpose(1, 2)
    for name in quantization.QUANTIZATIONS:
        assert all(part.is_contiguous() for part in quantization.encode(x, name).values()), name

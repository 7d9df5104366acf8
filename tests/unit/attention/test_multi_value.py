from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from vdit_core.attention import multi_value


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 2), heads=st.integers(1, 3), tokens=st.integers(1, 40), dim=st.integers(1, 16),
    values=st.integers(2, 4), seed=st.integers(0, 2**20),
)  # fmt: skip
def test_several_values_under_one_map_are_exact(reference, rows, heads, tokens, dim, values, seed):
    generator = torch.Generator().manual_seed(seed)
    q, k = torch.randn(2, rows, heads, tokens, dim, generator=generator, dtype=torch.float64)
    v = torch.randn(rows, heads, tokens, values * dim, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(multi_value.attend(q, k, v), reference(q, k, v), rtol=1e-12, atol=1e-12)


def test_the_size_of_a_chunk_does_not_matter(reference, monkeypatch):
    q, k = torch.randn(2, 1, 2, 50, 8)
    v = torch.randn(1, 2, 50, 24)
    monkeypatch.setattr("vdit_core.attention.reference.CHUNK_BYTES", 4 * 2 * 50 * 7)  # seven queries
    torch.testing.assert_close(multi_value.attend(q, k, v).double(), reference(q, k, v), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_several_values_are_as_near_as_a_fused_kernel_in_half_precision(reference, dtype):
    """The softmax is taken in float32, whatever the values are kept in."""
    q, k = (2 * torch.randn(1, 2, 200, 64, generator=torch.Generator().manual_seed(i)).to(dtype) for i in (0, 1))
    v = torch.randn(1, 2, 200, 3 * 64, generator=torch.Generator().manual_seed(2)).to(dtype)
    wanted = reference(q, k, v)
    fused = torch.cat([F.scaled_dot_product_attention(q, k, part) for part in v.split(64, -1)], -1)
    error = (multi_value.attend(q, k, v).double() - wanted).norm()
    assert error <= 1.1 * (fused.double() - wanted).norm()


@settings(deadline=None, max_examples=40)
@given(first=st.lists(st.integers(0, 4), min_size=1, max_size=5), seed=st.integers(0, 2**20))
def test_rows_with_one_map_are_exact(reference, first, seed):
    """first: any grouping of up to five rows; rows of a group have the same queries and keys."""
    first = [first.index(group) for group in first]
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, len(first), 2, 9, 4, generator=generator, dtype=torch.float64)
    q, k = q[first], k[first]
    calls = []

    def backend(q, k, v):
        calls.append(len(q))
        return F.scaled_dot_product_attention(q, k, v)

    backend.any_width = True
    output = multi_value.attend_shared(q, k, v, first, backend)
    torch.testing.assert_close(output, reference(q, k, v), rtol=1e-12, atol=1e-12)
    assert sum(calls) == len(set(first)), "a map of a group is computed once"


def test_one_value_goes_to_the_backend_as_it_is():
    q, k, v = torch.randn(3, 1, 2, 9, 4)
    seen = []
    output = multi_value.attend(q, k, v, lambda *x: seen.append(x) or F.scaled_dot_product_attention(*x))
    assert seen[0] == (q, k, v)
    assert torch.equal(output, F.scaled_dot_product_attention(q, k, v))


def test_values_that_do_not_split_into_heads_are_refused():
    with pytest.raises(ValueError, match="7 wide do not split into heads 4 wide"):
        multi_value.attend(torch.ones(1, 1, 2, 4), torch.ones(1, 1, 2, 4), torch.ones(1, 1, 2, 7))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_several_values_under_one_map_on_cuda(reference, dtype):
    q, k = torch.randn(2, 1, 2, 300, 128, device="cuda", dtype=dtype)
    v = torch.randn(1, 2, 300, 3 * 128, device="cuda", dtype=dtype)
    wanted = reference(q, k, v)
    stock = torch.cat([F.scaled_dot_product_attention(q, k, part) for part in v.split(128, -1)], -1)
    bound = 2 * (stock.double() - wanted).norm() + 1e-6 * wanted.norm()
    assert (multi_value.attend(q, k, v).double() - wanted).norm() <= bound

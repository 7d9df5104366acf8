"""Exact masking against a plain float64 map."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vdit_core.attention import reference as exact
from vdit_core.attention.reference import masked_attention

ROWS, HEADS, TOKENS, DIM = 2, 3, 23, 8


def random_call(seed: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    return torch.randn(3, ROWS, HEADS, TOKENS, DIM, generator=torch.Generator().manual_seed(seed)).to(dtype).unbind(0)


def brute(q, k, v, keep, rule, temperature, renormalise):
    """The masked map written out, row by row."""
    weights = (q.double() @ k.double().mT / math.sqrt(DIM) / temperature[:, None, None].double()).softmax(-1)
    masked = torch.zeros_like(weights)
    for r in range(ROWS):
        for h in range(HEADS):
            for i, row in enumerate(weights[r, h]):
                kept, mass = [], 0.0
                for j in row.argsort(descending=True).tolist():
                    enough = len(kept) >= max(1, round(float(keep[h]) * TOKENS)) if rule == "top-k" else mass >= keep[h]
                    if kept and enough:
                        break
                    kept.append(j)
                    mass += float(row[j])
                masked[r, h, i, kept] = row[kept]
    share = (masked > 0).double().mean((2, 3))
    if renormalise:
        masked /= masked.sum(-1, keepdim=True)
    return masked @ v.double(), share


@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize("rule", exact.RULES)
@given(seed=st.integers(0, 2**20), keep=st.lists(st.floats(0, 1), min_size=HEADS, max_size=HEADS))
def test_it_is_the_map_written_out(rule, renormalise, seed, keep):
    q, k, v = random_call(seed, torch.float64)
    temperature, keep = torch.tensor([1.0, 0.7, 1.6]), torch.tensor(keep, dtype=torch.float64)
    out, share = masked_attention(q, k, v, keep, rule, temperature, renormalise)
    expected, kept = brute(q, k, v, keep, rule, temperature, renormalise)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(share.double(), kept, rtol=1e-6, atol=1e-6)


def test_chunks_change_nothing(monkeypatch):
    q, k, v = random_call(1)
    whole = masked_attention(q, k, v, torch.full((HEADS,), 0.4))
    monkeypatch.setattr("vdit_core.attention.reference.CHUNK_BYTES", 4 * ROWS * HEADS * TOKENS * 5)
    for a, b in zip(whole, masked_attention(q, k, v, torch.full((HEADS,), 0.4)), strict=True):
        torch.testing.assert_close(a, b)


def test_everything_kept_is_attention(reference):
    q, k, v = random_call(2)
    out, share = masked_attention(q, k, v, torch.ones(HEADS))
    torch.testing.assert_close(out.double(), reference(q, k, v), rtol=1e-5, atol=1e-6)
    assert (share == 1).all()


def test_rows_may_keep_differently():
    q, k, v = random_call(3)
    keep = torch.tensor([[0.1, 0.5, 1.0], [0.9, 0.2, 0.3]])
    together = masked_attention(q, k, v, keep)[0]
    for row in range(ROWS):
        alone = masked_attention(q[row : row + 1], k[row : row + 1], v[row : row + 1], keep[row])[0]
        torch.testing.assert_close(together[row : row + 1], alone)


def test_wide_values_go_under_one_map():
    q, k, v = random_call(4)
    keep = torch.full((HEADS,), 0.3)
    wide = masked_attention(q, k, torch.cat([v, 2 * v], dim=-1), keep)[0]
    narrow = masked_attention(q, k, v, keep)[0]
    torch.testing.assert_close(wide, torch.cat([narrow, 2 * narrow], dim=-1))


def test_half_precision_comes_back():
    q, k, v = random_call(5, torch.bfloat16)
    out = masked_attention(q, k, v, torch.full((HEADS,), 0.5))[0]
    exactly = masked_attention(q.double(), k.double(), v.double(), torch.full((HEADS,), 0.5))[0]
    assert out.dtype == torch.bfloat16
    assert (out.double() - exactly).norm() / exactly.norm() < 5e-3


def test_what_cannot_be_meant_is_named():
    q, k, v = random_call(6)
    with pytest.raises(ValueError, match="no rule 'most'"):
        masked_attention(q, k, v, torch.ones(HEADS), "most")
    with pytest.raises(ValueError, match=r"The share is \[0\.0, 1\.5, 0\.0\]; it lies between 0 and 1"):
        masked_attention(q, k, v, torch.tensor([0.0, 1.5, 0.0]))

"""Run by `test_interpreted`: statistics of maps by kernels, in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from triton_interpreter import mend

from vdit_core.attention.triton import topk
from vdit_core.call import TokenGrid
from vdit_core.maps import fused, gpu, sums, wanted
from vdit_core.maps.statistics import map_statistics
from vdit_core.maps.wanted import Wanted

NAMES = ("frames", "temporal", "spatial", "entropy", "top", "needed", "largest", "pooled", "column_mass")


@pytest.fixture(autouse=True)
def mended():
    mend()


def rows_of(kind: str, keys: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(keys)
    noise = torch.randn(3, keys, generator=generator)
    if kind == "uniform":
        return torch.full((3, keys), 1 / keys)
    if kind == "one-hot":
        return torch.nn.functional.one_hot(torch.tensor([0, keys // 2, keys - 1]), keys).float()
    if kind == "near ties":
        bits = torch.full((3, keys), 1 / keys).view(torch.int32) + torch.randint(-2, 3, (3, keys), generator=generator)
        return bits.int().view(torch.float32)
    if kind == "ties":
        return (2 * noise).round().softmax(-1)
    return ({"sharp": 12.0, "flat": 0.3}[kind] * noise).softmax(-1)


@pytest.mark.parametrize("mass", [0.95, 1.0])
@pytest.mark.parametrize("keys", [1, 33, 300])
@pytest.mark.parametrize("kind", ["uniform", "one-hot", "near ties", "ties", "sharp", "flat"])
def check_the_strongest_keys(kind, keys, mass):
    given = rows_of(kind, keys)
    counts = torch.tensor([1, keys // 3 + 1, keys], dtype=torch.int32)
    reached = Wanted(mass=mass).reached
    found = topk.strongest(given, counts, reached).double()
    falling = given.double().sort(-1, descending=True).values.cumsum(-1)
    torch.testing.assert_close(found[:, :-1], falling[:, counts - 1], rtol=1e-5, atol=1e-7)
    fewest, most = ((falling < reached + off).sum(-1) + 1 for off in (-5e-7, 5e-7))
    assert (found[:, -1] >= fewest.clamp(max=keys)).all()
    assert (found[:, -1] <= most.clamp(max=keys)).all()
    assert (found[:, -1] == found[:, -1].round()).all()


@pytest.mark.parametrize(
    ("grid", "pooled", "queries", "top_queries"),
    [
        (TokenGrid(3, 4, 5, prefix=4, suffix=2), 4, None, 6),
        (TokenGrid(3, 4, 5, prefix=4, suffix=2), 4, 64, None),
        (TokenGrid(2, 5, 7), None, 66, 6),
    ],
)
def check_statistics_are_those_of_the_plain_path(grid, pooled, queries, top_queries, monkeypatch):
    generator = torch.Generator().manual_seed(grid.tokens)
    q, k = torch.randn(2, 1, grid.tokens, 2, 64, generator=generator).half().transpose(2, 3).unbind(0)
    asked = Wanted(pooled, top=(0.1, 0.5), top_queries=top_queries, per_token=pooled is not None)
    plain = map_statistics(q, k, grid, asked, queries)
    monkeypatch.setattr(gpu, "kernels_for", lambda *_: fused)
    monkeypatch.setattr(sums.Sums, "sum_rows", None)  # the plain path fails
    monkeypatch.setattr(fused, "_BYTES", 4 * 64 * 70)  # several chunks of rows
    found = map_statistics(q, k, grid, asked, queries)
    for name in NAMES:
        mine, other = (getattr(one, name) for one in (found, plain))
        assert (mine is None) == (other is None) == (pooled is None and name in ("pooled", "column_mass"))
        if other is not None:
            torch.testing.assert_close(mine.value, other.value, rtol=1e-4, atol=2e-6)
            assert (mine.error is None) == (other.error is None)
            if other.error is not None:
                torch.testing.assert_close(mine.error, other.error, rtol=1e-3, atol=2e-6)
    if asked.per_token:
        torch.testing.assert_close(found.entropies, plain.entropies, rtol=1e-4, atol=2e-6)


def check_a_mass_counts_as_reached_within_rounding():
    assert wanted.REACHED_WITHIN <= 1e-6
    assert topk.strongest(torch.full((1, 20), 1 / 20), torch.tensor([1], dtype=torch.int32), 0.95 - 1e-6)[0, -1] == 19

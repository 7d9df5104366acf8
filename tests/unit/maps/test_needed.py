"""The share of the keys that holds 95 % of a query's attention, against the plain map in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vdit_core.call import ModelSignature, TokenGrid
from vdit_core.maps.needed import NeededKeys, Published, needed_keys, ranking
from vdit_core.maps.statistics import map_statistics
from vdit_core.maps.wanted import Wanted
from vdit_core.ranks import rank_correlation
from vdit_core.recording.store import Header

GRID = TokenGrid(5, 8, 10, prefix=4)
ALL = Wanted(top_queries=None)


def counted(q, k, mass: float = 0.95, off: float = -1e-6) -> torch.Tensor:
    """Of each query the fewest keys that reach the mass, float64 (rows, heads, tokens)."""
    full = (q.double() @ k.double().mT / math.sqrt(q.shape[-1])).softmax(-1)
    falling = full.sort(-1, descending=True).values.cumsum(-1)
    return ((falling < mass + off).sum(-1) + 1).clamp(max=k.shape[2]).double()


def queries_and_keys(scale: float, dtype=torch.float32, grid: TokenGrid = GRID, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(2, 2, 3, grid.tokens, 16, generator=generator)).to(dtype).unbind(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("scale", [0.2, 1.0, 3.0, 8.0])
def test_of_all_queries_it_is_that_of_the_plain_map(scale, dtype):
    q, k = queries_and_keys(scale, dtype)
    found = map_statistics(q, k, GRID, ALL).needed
    assert found.error is None
    torch.testing.assert_close(found.value.double(), counted(q, k).mean(-1) / GRID.tokens, rtol=0, atol=1e-3)


def one_number(values: list[float], queries: int = 4):
    """Queries and keys of which every query gives these scores, one head wide."""
    keys = torch.tensor(values).float()
    return torch.ones(1, 1, len(values), 1), keys.view(1, 1, -1, 1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0] * 20, 19),  # uniform: 95 % of them, to a key
        ([0.0] * 21, 20),  # a whole number, rounded up
        ([50.0, *[0.0] * 30], 1),  # one-hot
        ([math.log(96.0), math.log(2.0), math.log(1.0), math.log(1.0)], 1),
        ([math.log(94.0), math.log(3.0), math.log(3.0)], 2),  # of equal keys no more than it takes
        ([math.log(46.0), *[math.log(9.0)] * 6], 7),
        ([0.0, 1e-6, 2e-6, 3e-6, *[-30.0] * 9], 4),  # near ties
    ],
)
def test_a_whole_number_of_keys_is_counted(values, expected):
    q, k = one_number(values)
    found = map_statistics(q, k, TokenGrid(1, 1, len(values)), ALL)
    assert float(found.needed.value) * len(values) == pytest.approx(expected, abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_it_is_the_fewest_that_reach_the_mass(data):
    grid = TokenGrid(data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5)), data.draw(st.integers(1, 7)))
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
    q, k = queries_and_keys(
        data.draw(st.sampled_from([0.0, 0.3, 1.0, 4.0])), dtype, grid, data.draw(st.integers(0, 99))
    )
    if data.draw(st.booleans()):
        k = k.round()  # ties
    mass = data.draw(st.sampled_from([0.05, 0.5, 0.9, 0.95, 0.999, 1.0]))
    found = map_statistics(q, k, grid, Wanted(mass=mass, top_queries=None)).needed.value.double() * grid.tokens
    fewest, most = (counted(q, k, mass, off).mean(-1) for off in (-2e-6, 0.0))
    assert ((fewest - 1e-3 <= found) & (found <= most + 1e-3)).all()


def test_a_sample_lies_within_its_error():
    q, k = queries_and_keys(1.5)
    truth, within, total = counted(q, k).mean(-1) / GRID.tokens, 0, 0
    for seed in range(40):
        found = map_statistics(q, k, GRID, Wanted(top_queries=None), queries=80, seed=seed).needed
        assert (found.error > 0).all()
        near = (found.value - truth).abs() <= 2 * found.error
        within, total = within + int(near.sum()), total + near.numel()
    assert 0.9 <= within / total < 1


def test_few_queries_of_all_have_an_error_and_all_have_none():
    q, k = queries_and_keys(1.0)
    some = map_statistics(q, k, GRID, Wanted(top_queries=50))
    assert (some.top_queries, map_statistics(q, k, GRID, ALL).top_queries) == (50, GRID.tokens)
    assert (some.needed.error > 0).all()
    assert (some.top.error > 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mass": 0.0}, "mass is 0.0; it lies above 0 and is at most 1"),
        ({"mass": 95}, "mass is 95"),
        ({"top": (0.1, 10)}, "top is 10"),
        ({"top_queries": 0}, "top_queries is 0; it is at least 1, or None"),
        ({"pooled": 0}, "pooled is 0"),
    ],
)
def test_what_cannot_be_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        Wanted(**changes)


def test_by_itself_it_is_the_same_figure():
    q, k = queries_and_keys(1.5)
    whole = map_statistics(q, k, GRID, Wanted(top_queries=60)).needed.value
    for row in range(2):
        found = needed_keys(q[row], k[row], GRID, Wanted(top_queries=60))
        torch.testing.assert_close(found.float(), whole[row])


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1, 2, 3, 4, 5], [5, 6, 7, 8, 7], 0.8207826816681233),  # worked out by hand: 8 / sqrt(10 * 9.5)
        ([1, 2, 3], [10, 20, 21], 1.0),
        ([0.1, 0.2, 0.9], [3, 2, 1], -1.0),
        ([1, 1, 2, 2], [1, 2, 1, 2], 0.0),
        ([1, 2], [1, 2], None),
        ([1, 1, 1], [1, 2, 3], None),
    ],
)
def test_the_rank_correlation(a, b, expected):
    found = rank_correlation(np.array(a), np.array(b))
    assert found == (None if expected is None else pytest.approx(expected))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-4, 4), st.floats(-9, 9)), min_size=3, max_size=30))
def test_it_is_pearsons_of_the_ranks_and_blind_to_scale(pairs):
    a, b = (np.array(x, dtype=float) for x in zip(*pairs, strict=True))
    found = rank_correlation(a, b)
    ranks = [np.array([(x < y).sum() + ((x == y).sum() + 1) / 2 for y in x]) for x in (a, b)]
    if min(np.ptp(x) for x in ranks) == 0:
        assert found is None
        return
    assert found == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-9)
    assert rank_correlation(b, a) == pytest.approx(found, abs=1e-9)
    assert rank_correlation(np.exp(a), -b) == pytest.approx(-found, abs=1e-9)


def test_only_layers_and_heads_that_both_have_are_ranked():
    values = np.arange(12.0).reshape(3, 4)
    whole = NeededKeys((0, 1, 2), (0, 1, 2, 3), values)
    part = NeededKeys((1, 2, 5), (3, 0), -np.arange(6.0).reshape(3, 2))
    assert whole.rank_correlation(part) == pytest.approx(rank_correlation(values[1:][:, [0, 3]], part.values[:2, ::-1]))
    assert NeededKeys((7,), (0, 1), values[:1, :2]).rank_correlation(whole) is None
    published = Published("a model", np.arange(40.0).reshape(10, 4))
    assert part.rank_with(published) == pytest.approx(
        rank_correlation(part.values, published.needed[[1, 2, 5]][:, [3, 0]])
    )


def test_heads_that_cannot_be_ranked_are_told():
    assert ranking({"two": None}).endswith("of their attention: none, they cannot be ranked.")
    assert ranking({"two": 0.934, "three": None}, 0.9).endswith("hold 90 % of their attention: 0.93 (two).")


def header_of(model: ModelSignature, kind: str) -> Header:
    return Header(model, GRID, (1.0, 0.5), tuple(range(model.heads)), 1, "none", "bfloat16", kind)


def test_a_published_measurement_is_that_of_the_model():
    shape = ModelSignature(30, 12, 128)
    published = Published.of(header_of(shape, "wan t2v 16 -> 16"))
    assert published.name == "Wan2.1 1.3B T2V"
    assert published.needed.shape == (30, 12)
    part = NeededKeys((3, 28), tuple(range(12)), published.needed[[3, 28]])
    assert part.rank_with(published) == pytest.approx(1)
    assert Published.of(header_of(ModelSignature(9, 2, 16), "wan t2v 16 -> 16")) is None
    assert Published.of(header_of(shape, "hunyuan video 16 -> 16")) is None

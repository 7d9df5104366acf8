"""Streamed statistics against the plain map in float64."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vdit_core.call import TokenGrid
from vdit_core.maps import distance, sampling, sums
from vdit_core.maps.crop import Crop, map_crop
from vdit_core.maps.statistics import map_statistics
from vdit_core.maps.wanted import Wanted

GRIDS = [TokenGrid(3, 4, 5), TokenGrid(1, 1, 7), TokenGrid(2, 3, 4, prefix=3, suffix=2), TokenGrid(5, 1, 1)]


def tensors(grid: TokenGrid, seed: int = 0, heads: int = 2, scale: float = 2.0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(2, 2, heads, grid.tokens, 8, generator=generator)).unbind(0)


def plain(q, k):
    """The map, float64 (rows, heads, tokens, tokens)."""
    return (q.double() @ k.double().mT / math.sqrt(q.shape[-1])).softmax(-1)


def close(found, expected):
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)


@pytest.fixture(params=["one chunk", "many chunks"])
def chunks(request, monkeypatch):
    if request.param == "many chunks":
        monkeypatch.setattr("vdit_core.attention.reference.CHUNK_BYTES", 4 * 40 * 3)
        monkeypatch.setattr(sums, "MIN_ROWS", 1)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_exact_figures_are_those_of_the_plain_map(grid):
    q, k = tensors(grid)
    full, n = plain(q, k), grid.tokens
    found = map_statistics(q, k, grid, Wanted(pooled=5, top=(0.2, 1.0), top_queries=n))
    assert found.exact
    assert found.column_mass.error is None

    close(found.column_mass.value, full.mean(2) * n)
    entropy = -(full * full.log()).sum(-1)
    close(found.entropies, entropy)
    close(found.entropy.value, entropy.mean(-1))
    close(found.largest.value, full.mean(2).amax(-1) * n)
    close(found.top.value[..., 1], torch.ones(2, 2).double())
    strongest = full.topk(max(1, round(0.2 * n)), dim=-1).values.sum(-1).mean(-1)
    close(found.top.value[..., 0], strongest)

    edges = [-(-i * n // min(5, n)) for i in range(min(5, n) + 1)]
    blocks = [[full[..., a:b, c:d].mean((-1, -2)) for c, d in pairwise(edges)] for a, b in pairwise(edges)]
    close(found.pooled.value, torch.stack([torch.stack(row, -1) for row in blocks], -2))

    placed = full[..., grid.prefix : n - grid.suffix, grid.prefix : n - grid.suffix]
    per_frame = grid.height * grid.width
    cube = placed.unflatten(-1, (grid.frames, per_frame)).unflatten(-3, (grid.frames, per_frame))
    close(found.frames.value, cube.sum(-1).mean(-2))
    temporal = torch.zeros(2, 2, grid.frames).double()
    spatial: dict[int, torch.Tensor] = {}
    for a in range(len(placed[0, 0])):
        for b in range(len(placed[0, 0])):
            (f, s), (g, t) = divmod(a, per_frame), divmod(b, per_frame)
            apart = int(math.dist(divmod(s, grid.width), divmod(t, grid.width)) + 1e-9)
            temporal[..., abs(f - g)] += placed[..., a, b]
            spatial[apart] = spatial.get(apart, 0) + placed[..., a, b]
    close(found.temporal.value, temporal / len(placed[0, 0]))
    for apart, mass in spatial.items():
        close(found.spatial.value[..., apart], mass / len(placed[0, 0]))


def test_all_queries_sampled_is_exact_with_no_error():
    grid = TokenGrid(4, 4, 8)
    q, k = tensors(grid)
    exact, sampled = map_statistics(q, k, grid), map_statistics(q, k, grid, queries=grid.tokens)
    assert sampled.queries == grid.tokens
    for name in ("column_mass", "entropy", "frames", "temporal", "spatial"):
        close(getattr(sampled, name).value, getattr(exact, name).value.double())
        assert getattr(sampled, name).error.abs().max() < 1e-6


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_window_is_a_part_of_the_plain_map(grid):
    q, k = tensors(grid)
    full = plain(q, k)
    close(map_crop(q, k, Crop((1, 4), (0, 3))), full[..., 1:4, 0:3])
    pooled = map_crop(q, k, Crop((1, 5), (0, 4), edge=2))
    close(pooled, full[..., 1:5, 0:4].unflatten(-1, (2, 2)).unflatten(-3, (2, 2)).mean((-1, -3)))


def test_what_grows_with_the_tokens_can_be_let_go():
    grid = TokenGrid(3, 4, 5)
    small = map_statistics(*tensors(grid), grid).small()
    assert small.pooled is small.column_mass is small.entropies is None
    assert small.frames.value.shape == (2, 2, 3, 3)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_map_without_preference_is_uniform(grid):
    q, k = tensors(grid)
    found = map_statistics(q, 0 * k, grid)
    for name in ("temporal", "spatial"):
        apart = getattr(distance, name)(grid)
        expected = distance.uniform(apart, grid)
        close(getattr(found, name).value, expected.expand(2, 2, -1))
    assert expected.sum() == pytest.approx(1 - (grid.prefix + grid.suffix) / grid.tokens)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_samples_are_spread_evenly_and_do_not_repeat(data):
    drawn = [data.draw(st.integers(1, most)) for most in (9, 20, 20)]
    grid = TokenGrid(*drawn, prefix=data.draw(st.integers(0, 30)))
    queries = data.draw(st.integers(1, grid.tokens))
    chosen = sampling.sample(grid, queries, data.draw(st.integers(0, 9)))
    assert len(chosen) == len(chosen.unique()) == queries
    assert (chosen.diff() > 0).all()
    size = grid.height * grid.width
    of_frames = torch.bincount((chosen[chosen >= grid.prefix] - grid.prefix) // size, minlength=grid.frames)
    assert (of_frames - queries * size / grid.tokens).abs().max() < 1


def test_every_query_is_as_likely_as_any_other():
    grid, times = TokenGrid(5, 3, 3, prefix=2), 4000
    drawn = torch.cat([sampling.sample(grid, 20, seed) for seed in range(times)])
    expected = times * 20 / grid.tokens
    often = torch.bincount(drawn, minlength=grid.tokens)
    assert (often - expected).abs().max() < 5 * math.sqrt(expected * (1 - 20 / grid.tokens))


@pytest.mark.parametrize("grid", [TokenGrid(21, 4, 5), TokenGrid(33, 4, 5), TokenGrid(2, 6, 9)], ids=str)
def test_with_the_fewest_queries_every_figure_has_an_honest_error(grid):
    q, k = tensors(grid)
    exact = map_statistics(q, k, grid, Wanted(pooled=2, top_queries=grid.tokens))
    within = total = 0
    for seed in range(20):
        found = map_statistics(q, k, grid, Wanted(pooled=2), queries=sampling.min_queries(grid), seed=seed)
        for name in ("frames", "temporal", "spatial", "entropy", "pooled", "column_mass"):
            figure = getattr(found, name)
            assert figure.value.isfinite().all()
            assert (figure.error > 0).all()
            near = (getattr(exact, name).value - figure.value).abs() <= 3 * figure.error
            within, total = within + int(near.sum()), total + near.numel()
    assert within / total >= 0.99


def test_a_single_query_has_an_infinite_error():
    from vdit_core.maps.estimate import Mean

    mean = Mean(1, 2, torch.tensor([8, 8, 8]), torch.device("cpu"))
    mean.add(torch.tensor([[[1.0, 3.0], [2.0, 3.0], [5.0, 5.0]]]), torch.tensor([0, 0, 1]))
    found = mean.estimate(sampled=True)
    assert found.value[0, 0].tolist() == [1.5, 3.0]
    assert found.error[0, 0, 0] > 0
    assert found.error[0, 1:].isinf().all()


def test_mistakes_are_named():
    grid = TokenGrid(2, 3, 4)
    q, k = tensors(grid)
    with pytest.raises(ValueError, match=r"not \(rows, heads, 27, head_dim\)"):
        map_statistics(q, k, TokenGrid(3, 3, 3))
    with pytest.raises(ValueError, match="columns 0 to 24 do not lie within the map's 24 tokens, 0 to 23"):
        map_crop(q, k, Crop((0, 2), (0, 25)))
    with pytest.raises(ValueError, match=r"24 sampled queries: of a map on .* there must be at least 64"):
        map_statistics(q, k, grid, queries=24)


def test_a_chunk_may_interrupt():
    def stop():
        raise KeyboardInterrupt

    grid = TokenGrid(2, 3, 4)
    with pytest.raises(KeyboardInterrupt):
        map_statistics(*tensors(grid), grid, on_chunk=stop)

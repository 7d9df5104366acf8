"""Streamed statistics against the plain map in float64."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vdit_core.call import TokenGrid
from vdit_core.inspect import rows
from vdit_core.inspect.statistics import map_statistics
from vdit_core.inspect.wanted import Wanted, Window

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
        monkeypatch.setattr(rows, "CHUNK_BYTES", 4 * 40 * 3)
        monkeypatch.setattr(rows, "LEAST_ROWS", 1)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_exact_figures_are_those_of_the_plain_map(grid):
    q, k = tensors(grid)
    full, n = plain(q, k), grid.tokens
    window = Window((1, 4), (0, 3))
    found = map_statistics(q, k, grid, Wanted(pooled=5, window=window, top=(0.2, 1.0), top_queries=n))
    assert found.exact
    assert found.received.error is None

    close(found.received.value, full.mean(2) * n)
    entropy = -(full * full.log()).sum(-1)
    close(found.entropies, entropy)
    close(found.entropy.value, entropy.mean(-1))
    close(found.window, full[..., 1:4, 0:3])
    pooled = map_statistics(q, k, grid, Wanted(window=Window((1, 5), (0, 4), edge=2))).window
    close(pooled, full[..., 1:5, 0:4].unflatten(-1, (2, 2)).unflatten(-3, (2, 2)).mean((-1, -3)))
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
    for name in ("received", "entropy", "frames", "temporal", "spatial"):
        close(getattr(sampled, name).value, getattr(exact, name).value.double())
        assert getattr(sampled, name).error.abs().max() < 1e-6


@settings(max_examples=40, deadline=None)
@given(st.integers(64, 5000), st.data())
def test_samples_are_spread_evenly_and_do_not_repeat(tokens, data):
    queries = data.draw(st.integers(64, tokens))
    chosen = rows.sample(tokens, queries, data.draw(st.integers(0, 9)))
    assert len(chosen) == len(chosen.unique()) == queries
    assert (chosen.diff() > 0).all()
    in_half = int((chosen < tokens // 2).sum())
    assert abs(in_half - queries / 2) <= queries / (queries // 32)


def test_mistakes_are_named():
    grid = TokenGrid(2, 3, 4)
    q, k = tensors(grid)
    with pytest.raises(ValueError, match=r"not \(rows, heads, 27, head_dim\)"):
        map_statistics(q, k, TokenGrid(3, 3, 3))
    with pytest.raises(ValueError, match="columns 0 to 25 do not lie within the map's 24 tokens"):
        map_statistics(q, k, grid, Wanted(window=Window((0, 2), (0, 25))))
    with pytest.raises(ValueError, match="24 sampled queries: there must be at least 64"):
        map_statistics(q, k, grid, queries=24)


def test_a_chunk_may_interrupt():
    def stop():
        raise KeyboardInterrupt

    grid = TokenGrid(2, 3, 4)
    with pytest.raises(KeyboardInterrupt):
        map_statistics(*tensors(grid), grid, on_chunk=stop)

"""Patterns against their definitions, and block-sparse attention against a brute-force mask in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vdit_core.call import TokenGrid
from vdit_core.sparse.block_mask import top_k, top_p, with_dense_queries
from vdit_core.sparse.kernels import gathered as gathered_file
from vdit_core.sparse.kernels import kernels_for
from vdit_core.sparse.kernels.gathered import Gathered
from vdit_core.sparse.patterns import PATTERNS
from vdit_core.sparse.patterns.always import always, placeless
from vdit_core.sparse.tiled import tile
from vdit_core.sparse.tiling import tiles

HEADS, DIM = 2, 16
grids = st.builds(
    TokenGrid,
    frames=st.integers(1, 6),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    prefix=st.sampled_from([0, 0, 5]),
    suffix=st.sampled_from([0, 0, 3]),
)
shares = st.lists(st.floats(0, 1), min_size=HEADS, max_size=HEADS).map(torch.tensor)


def random_call(grid: TokenGrid, seed: int, rows: int = 2) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, rows, HEADS, grid.tokens, DIM, generator=generator).unbind(0)


def token_mask(lists, plan) -> torch.Tensor:
    """Which token looks at which, bool (rows, heads, tokens, tokens), in the host's order."""
    place = torch.empty(plan.grid.tokens, dtype=torch.long)
    place[plan.permutation.long()] = torch.arange(plan.grid.tokens)
    return lists.to_dense(plan.key_blocks)[:, :, place // plan.queries][..., place // plan.keys]


def brute(q, k, v, mask, sharpness):
    scores = q.double() @ k.double().mT / math.sqrt(DIM) * sharpness[:, None, None].double()
    return scores.masked_fill(~mask, -math.inf).softmax(-1) @ v.double()


@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=40)
@given(grid=grids, keep=shares, first_frame=st.booleans(), seed=st.integers(0, 2**20))
def test_block_sparse_attention_is_the_masked_map(pattern, grid, keep, first_frame, seed):
    q, k, v = random_call(grid, seed)
    plan, sharpness = tiles(grid), torch.tensor([1.0, 1.4])
    call = tile(q, k, v, plan)
    lists = PATTERNS[pattern](call, keep, always(plan, first_frame), sharpness)
    lists = with_dense_queries(lists, placeless(plan), plan.key_blocks)
    mask = token_mask(lists, plan)
    assert mask.any(-1).all(), "a query looks at nothing"
    out = Gathered()(call, lists, sharpness)
    torch.testing.assert_close(out.double(), brute(q, k, v, mask, sharpness), rtol=1e-4, atol=1e-5)
    computed = lists.to_dense(plan.key_blocks).float().mean((0, 2, 3))
    torch.testing.assert_close(lists.density(plan.key_blocks), computed.expand(len(lists.density(plan.key_blocks))))


@pytest.mark.parametrize("pattern", [name for name in PATTERNS if name != "block top-p"])
@given(grid=grids, keep=shares)
def test_the_share_is_kept(pattern, grid, keep):
    """As many blocks as asked for, or those that are always kept."""
    plan = tiles(grid)
    call = tile(*random_call(grid, 0), plan)
    kept = always(plan)
    counts = PATTERNS[pattern](call, keep, kept, torch.ones(HEADS)).kv_num_blocks
    expected = (keep * plan.key_blocks).round().clamp(min=int(kept.sum()))
    assert (counts == expected[:, None]).all()


@given(grid=grids, keep=shares)
def test_mass_is_reached_and_no_block_is_wasted(grid, keep):
    plan = tiles(grid)
    call = tile(*random_call(grid, 1), plan)
    weights = (call.q_means @ call.k_means.mT / math.sqrt(DIM)).softmax(-1)
    mask = PATTERNS["block top-p"](call, keep, always(plan), torch.ones(HEADS)).to_dense(plan.key_blocks)
    held = (weights * mask).sum(-1)
    assert (held >= keep[:, None] - 1e-5).all()
    free = mask.clone()
    free[..., always(plan)] = False
    smallest = weights.masked_fill(~free, math.inf).amin(-1)
    assert ((held - smallest < keep[:, None] + 1e-5) | smallest.isinf()).all()


def test_top_blocks_are_those_of_the_best_means():
    plan = tiles(TokenGrid(4, 8, 8))
    call = tile(*random_call(plan.grid, 2), plan)
    scores = call.q_means @ call.k_means.mT
    mask = PATTERNS["block top-k"](call, torch.tensor([0.3, 0.6]), always(plan), torch.ones(HEADS)).to_dense(
        plan.key_blocks
    )
    scores[..., -1] = math.inf  # always kept
    least_kept = scores.masked_fill(~mask, math.inf).amin(-1)
    best_left = scores.masked_fill(mask, -math.inf).amax(-1)
    assert (least_kept >= best_left).all()


def test_a_window_is_around_its_block_and_equally_large_everywhere():
    plan = tiles(TokenGrid(6, 12, 12))
    call = tile(*random_call(plan.grid, 3), plan)
    mask = PATTERNS["window"](call, torch.tensor([0.1, 0.25]), always(plan), torch.ones(HEADS)).to_dense(
        plan.key_blocks
    )
    sides = torch.tensor([6.0, 12.0, 12.0])
    apart = ((plan.query_centres()[:, None] - plan.centre).abs() / sides).amax(-1)
    for head in range(HEADS):
        for query in range(plan.query_blocks):
            near = mask[0, head, query].clone()
            near[-1] = False
            left = ~mask[0, head, query]
            assert apart[query][near].max() <= apart[query][left].min() + 2e-3


def test_a_radial_disc_shrinks_with_time():
    plan = tiles(TokenGrid(9, 16, 16))
    call = tile(*random_call(plan.grid, 4), plan)
    mask = PATTERNS["radial"](call, torch.tensor([0.4, 0.4]), always(plan), torch.ones(HEADS)).to_dense(plan.key_blocks)
    away = (plan.query_centres()[:, None] - plan.centre).abs()
    mask[..., -1] = False  # always kept
    radius = away[..., 1:].norm(dim=-1).where(mask[0, 0], 0)
    near, far = ((away[..., 0] >= low) & (away[..., 0] < high) for low, high in ((0, 2), (4, 8)))
    assert radius[near].max() > 1.9 * radius[far].max() > 0


def test_static_patterns_are_made_once():
    plan = tiles(TokenGrid(5, 8, 8))
    call, other = (tile(*random_call(plan.grid, seed), plan) for seed in (5, 6))
    for pattern in ("window", "radial"):
        first, second = (
            PATTERNS[pattern](one, torch.tensor([0.2, 0.3]), always(plan), torch.ones(HEADS)) for one in (call, other)
        )
        assert first is second


def test_lists_begin_with_the_last_block():
    scores = torch.randn(1, HEADS, 5, 11)
    kept = torch.zeros(11, dtype=torch.bool)
    with pytest.raises(ValueError, match="last key block"):
        top_k(scores, torch.tensor([0.5, 0.5]), kept)
    kept[[2, 10]] = True
    for lists in (
        top_k(scores, torch.tensor([0.1, 0.5]), kept),
        top_p(scores.softmax(-1), torch.tensor([0.1, 0.9]), kept),
    ):
        assert (lists.kv_indices[..., 0] == 10).all()
        assert (lists.kv_indices[..., 1] == 2).all()
        for found, count in zip(lists.kv_indices.flatten(0, 2), lists.kv_num_blocks.flatten(), strict=True):
            listed = found[:count].tolist()
            assert len(set(listed)) == len(listed)


def test_few_bytes_at_once_change_nothing(monkeypatch):
    plan = tiles(TokenGrid(4, 8, 8))
    call = tile(*random_call(plan.grid, 7), plan)
    lists = PATTERNS["block top-k"](call, torch.tensor([0.3, 0.6]), always(plan), torch.ones(HEADS))
    whole = Gathered()(call, lists, torch.ones(HEADS))
    monkeypatch.setattr(gathered_file, "_BYTES", 1)
    torch.testing.assert_close(Gathered()(call, lists, torch.ones(HEADS)), whole)


def test_a_cpu_gathers():
    assert [kernel.name for kernel in kernels_for(torch.zeros(1, 1, 4, 16), "block top-k")] == ["gathered blocks"]

"""The order of tokens in tiles: a permutation, compact blocks, any grid."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vdit_core.call import TokenGrid
from vdit_core.sparse.patterns.always import always, placeless
from vdit_core.sparse.tiling import block_sizes, tiles

grids = st.builds(
    TokenGrid,
    frames=st.integers(1, 9),
    height=st.integers(1, 13),
    width=st.integers(1, 17),
    prefix=st.integers(0, 40),
    suffix=st.integers(0, 9),
)


@given(grids)
def test_every_token_has_one_place(grid):
    found = tiles(grid)
    assert found.permutation.long().sort().values.equal(torch.arange(grid.tokens))
    assert found.queries % found.keys == 0
    assert found.permutation[: grid.prefix].tolist() == list(range(grid.prefix))
    assert found.permutation[grid.tokens - grid.suffix :].tolist() == list(
        range(grid.tokens - grid.suffix, grid.tokens)
    )


@given(grids)
def test_the_first_frame_takes_the_fewest_blocks(grid):
    """Its tokens follow each other, so they lie in no more blocks than their number asks for, plus one begun."""
    found, size = tiles(grid), grid.height * grid.width
    held = found.blocks_of(torch.arange(grid.prefix, grid.prefix + size))
    assert held.sum() <= -(-size // found.keys) + 1


@given(grids)
def test_blocks_of_tokens_are_those_that_hold_them(grid):
    found = tiles(grid)
    chosen = torch.arange(0, grid.tokens, 7)
    held = {int(i) // found.keys for i in torch.isin(found.permutation.long(), chosen).nonzero()}
    assert set(found.blocks_of(chosen).nonzero()[:, 0].tolist()) == held


@pytest.mark.parametrize("grid", [TokenGrid(21, 30, 52), TokenGrid(21, 45, 80), TokenGrid(13, 31, 47)], ids=str)
def test_blocks_are_compact(grid):
    """The box around a block of 128 tokens holds mostly these."""
    found = tiles(grid)
    assert (found.queries, found.keys) == (128, 64)
    size = grid.height * grid.width
    token = found.permutation.long()[: found.query_blocks * 128 - 128]
    places = torch.stack([token // size, token // grid.width % grid.height, token % grid.width], dim=-1)
    blocks = places.unflatten(0, (-1, 128))
    box = (blocks.amax(1) - blocks.amin(1) + 1).prod(-1).float()
    assert box.median() <= 256


@pytest.mark.parametrize(("tokens", "sizes"), [(1, (4, 4)), (320, (8, 8)), (2048, (128, 64)), (75600, (128, 64))])
def test_small_grids_have_small_blocks(tokens, sizes):
    assert block_sizes(tokens) == sizes


@given(grids)
def test_what_is_always_kept(grid):
    found = tiles(grid)
    kept = always(found)
    assert kept[-1]
    size = grid.height * grid.width
    first = always(found, first_frame=True)
    assert (first | ~kept).all()
    assert first[found.blocks_of(torch.arange(grid.prefix, grid.prefix + size))].all()
    outside = [*range(grid.prefix), *range(grid.tokens - grid.suffix, grid.tokens)]
    assert kept[found.blocks_of(torch.tensor(outside, dtype=torch.long))].all()
    dense = placeless(found)
    for block in range(found.query_blocks):
        tokens = found.permutation[block * found.queries : (block + 1) * found.queries].tolist()
        assert bool(dense[block]) == any(token in outside for token in tokens)

"""Sink Control under a mask of layers and heads."""

from __future__ import annotations

import pytest
import torch
from synthetic_host import SyntheticHost, same

from vdit_core.head_mask import HeadMask
from vdit_core.selection import LayerMask, SelectionError
from vdit_core.sinks.control import ACTIONS, SinkControl, Targets

HOST = SyntheticHost(layers=3, heads=4)
SINKS = Targets(HOST.describe().model, HOST.grid, {(0, 0): (4,), (1, 3): (1, 2), (2, 1): (7,), (2, 2): (5,)})


def test_a_mask_leaves_sinks_of_other_heads_as_they_are():
    chosen = SINKS.within(HeadMask("0, 2@2:0.5, 1@0-2"))
    assert chosen.tokens == {(0, 0): (4,), (2, 2): (5,)}
    assert (chosen.strengths[0, 0], chosen.strengths[2, 2]) == (1, 0.5)
    assert chosen.within(HeadMask("2:0.5")).strengths[2, 2] == 0.25
    assert SINKS.within(LayerMask("2")).tokens == {(2, 1): (7,), (2, 2): (5,)}
    with pytest.raises(SelectionError, match="Head 4"):
        SINKS.within(HeadMask("all@4"))


@pytest.mark.parametrize("action", ACTIONS)
def test_each_head_is_changed_as_strongly_as_the_mask_says(action):
    masked = HOST.run(1, SinkControl(SINKS.within(HeadMask("1:0.25, 2@2")), action, cap=0.02))
    stock, whole = HOST.run(1), HOST.run(1, SinkControl(SINKS, action, cap=0.02))
    for key, value in masked.items():
        for head in range(HOST.heads):
            strength = {(1, 3): 0.25, (2, 2): 1}.get((key[0], head), 0)
            wanted = (1 - strength) * stock[key][head] + strength * whole[key][head]
            torch.testing.assert_close(value[head], wanted, rtol=1e-4, atol=1e-5)
    assert not same(stock, masked)


@pytest.mark.parametrize("action", ACTIONS)
def test_masks_of_all_and_of_none(action):
    for mask in (LayerMask(), HeadMask()):
        assert same(HOST.run(1, SinkControl(SINKS.within(mask), action)), HOST.run(1, SinkControl(SINKS, action)))
    none = SinkControl(SINKS.within(HeadMask("none")), action)
    assert same(HOST.run(1, none), HOST.run(1))
    assert "no sinks to change" in none.verdict().text


def test_random_heads_are_as_many_as_the_mask_leaves_and_have_no_sinks():
    chosen = SINKS.within(HeadMask("0:0.5, 2@2"))
    for seed in range(9):
        other = chosen.random_heads(seed)
        assert len(other) == 2
        assert not set(other.tokens) & set(SINKS.tokens)
        assert sorted(other.strengths[head] for head in other.tokens) == [0.5, 1]
        assert set(chosen.random_tokens(seed).tokens) == set(chosen.tokens)

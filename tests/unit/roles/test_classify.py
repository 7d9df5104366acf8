"""Heads that are known get their role."""

from __future__ import annotations

import planted_heads as planted
import pytest
import torch

from vdit_core.call import ModelSignature, Run, TokenGrid
from vdit_core.recording.store import Evaluation, Key
from vdit_core.roles.classify import FIRST, LAYOUT, MIXED, MOTION, SINK, TRACKER, classify
from vdit_core.roles.observer import ObservedHeads, table
from vdit_core.roles.statistics import head_figures

GRID = TokenGrid(5, 8, 8)


def roles_of(*looks_at, grid: TokenGrid = GRID):
    """A model of one layer whose heads look at these keys."""
    pairs = [planted.head(grid, at) for at in looks_at]
    q, k = (torch.stack([pair[n] for pair in pairs])[None] for n in (0, 1))
    run = Run(ModelSignature(1, len(pairs), grid.tokens), grid, (1.0,), ("cond",), 1, torch.float32)
    seen = ObservedHeads(run, tuple(range(len(pairs))), {Key(Evaluation(1.0), "cond", 0): head_figures(q, k, grid)})
    return classify(table([seen]))


@pytest.mark.parametrize("grid", [GRID, TokenGrid(4, 6, 9, prefix=3, suffix=2)], ids=str)
@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (-1, 2), (1, -1)])
def test_a_shift_by_so_much_a_frame_is_motion_along_it(shift, grid):
    found = roles_of(planted.moving(grid, *shift), grid=grid)
    assert found.roles == {(0, 0): MOTION}
    assert (found.table.figures.displacement[0, 0] - torch.tensor(shift)).abs().max() < 0.1


@pytest.mark.parametrize("grid", [GRID, TokenGrid(4, 6, 9, prefix=3, suffix=2)], ids=str)
def test_planted_heads_get_their_role(grid):
    found = roles_of(
        planted.own_place(grid),
        planted.moving(grid, 0, 0),
        planted.first_frame(grid),
        planted.sink(grid, grid.tokens // 2),
        planted.sink(grid, grid.prefix + 5),
        torch.zeros(grid.tokens, grid.tokens, dtype=torch.bool),
        grid=grid,
    )
    assert list(found.roles.values()) == [LAYOUT, TRACKER, FIRST, SINK, SINK, MIXED]
    assert found.table.figures.displacement[0, :3].abs().max() < 0.1  # a sink lies in the same direction for most
    for head in range(5):
        assert found.score((0, head)) > 0.75


def test_half_a_token_is_the_mean_of_two_shifts():
    both = planted.moving(GRID, 0, 0) | planted.moving(GRID, 0, 1)
    found = roles_of(both)
    assert found.table.figures.displacement[0, 0, 1] == pytest.approx(0.5, abs=0.1)
    assert found.roles == {(0, 0): MOTION}


def test_a_score_is_0_without_preference_and_1_for_all_of_the_attention():
    found = roles_of(torch.zeros(GRID.tokens, GRID.tokens, dtype=torch.bool), planted.own_place(GRID))
    assert all(abs(float(values[0, 0])) < 1e-5 for values in found.scores.values())
    assert float(found.scores[LAYOUT][0, 1]) == pytest.approx(1, abs=1e-4)


def test_videos_that_move_apart_have_a_speed_together():
    pairs = [planted.head(GRID, planted.moving(GRID, 0, right)) for right in (1, -1)]
    q, k = (torch.stack([pair[n] for pair in pairs])[:, None] for n in (0, 1))
    run = Run(ModelSignature(1, 1, GRID.tokens), GRID, (1.0,), ("cond",), 2, torch.float32)
    found = classify(table([ObservedHeads(run, (0,), {Key(Evaluation(1.0), "cond", 0): head_figures(q, k, GRID)})]))
    assert found.table.speed[0, 0] == pytest.approx(1, abs=0.1)
    assert found.table.figures.displacement.abs().max() < 0.1
    assert found.roles == {(0, 0): MOTION}

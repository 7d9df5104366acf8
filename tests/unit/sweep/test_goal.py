"""A goal: its words, and what a video has of it."""

from __future__ import annotations

import math

import pytest
import torch

from vdit_core import metrics
from vdit_core.sweep.goal import Goal, GoalError, Judge, Measure, Measures, SearchConfig, Traded, front
from vdit_core.sweep.pixel_measures import pixel_measures

GOAL = Goal(("pan",), ("object",))
#: Clips of one number for the pan, in px, and one for the object, between 0 and 1.
MEASURES = Measures(
    {
        "pan": Measure(lambda a, b: -float(abs(a[0] - b[0])), top=0.0, least=1.0, unit=" px"),
        "object": Measure(lambda a, b: 1 - float(abs(a[1] - b[1]))),
    },
    look=lambda clip: clip.flatten(),
)


def clip(pan: float, thing: float) -> torch.Tensor:
    return torch.tensor([pan, thing])


def judge(goal: Goal = GOAL) -> Judge:
    return Judge(goal, MEASURES, clip(10, 0.0), clip(0, 1.0))


@pytest.mark.parametrize(
    ("text", "keep", "free"),
    [
        ("keep pan, free object", ("pan",), ("object",)),
        ("free object,keep  pan", ("pan",), ("object",)),
        ("Keep motion, edges, free palette, object", ("motion", "edges"), ("palette", "object")),
    ],
)
def test_goals_are_words(text, keep, free):
    goal = Goal.parse(text, 0.25)
    assert (goal.keep, goal.free, goal.weight) == (keep, free, 0.25)
    assert Goal.parse(str(goal), 0.25) == goal


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Cannot read ''"),
        ("pan", "Cannot read 'pan' in the goal 'pan'. Write for example: keep motion, free palette"),
        ("keep pan", "'keep pan' has nothing to free"),
        ("free pan, object", "has nothing to keep"),
        ("keep pan, free pan", "names pan more than once"),
        ("keep pan,, free object", "Cannot read ''"),
        ("keep pan; free object", "Cannot read 'keep pan; free object'"),
        ("keep, free object", "has nothing to keep|Cannot read 'keep'"),
    ],
)
def test_texts_that_are_no_goals_are_refused(text, message):
    with pytest.raises(GoalError, match=message):
        Goal.parse(text)


@pytest.mark.parametrize("weight", [0, 1, -0.5, math.nan, "0.5"])
def test_weights_out_of_range_are_named(weight):
    with pytest.raises(GoalError, match="weight of keep is"):
        Goal(("pan",), ("object",), weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"most_groups": 0}, "most_groups is 0"),
        ({"candidates": 2.5}, "candidates is 2.5"),
        ({"least_gain": -1}, "least_gain is -1"),
        ({"least_gain": math.nan}, "least_gain is nan"),
    ],
)
def test_searches_that_cannot_be_are_refused(changes, message):
    with pytest.raises(GoalError, match=message):
        SearchConfig(GOAL, **changes)


def test_an_unknown_measure_is_named_with_the_known_ones():
    with pytest.raises(GoalError, match="no measure 'edges' here; there are pan, object"):
        Goal(("edges",), ("object",)).check(MEASURES)


@pytest.mark.parametrize(
    ("video", "kept", "free"),
    [(clip(0, 1), 0, 1), (clip(10, 0), 1, 0), (clip(10, 1), 1, 1), (clip(5, 0.25), 0.5, 0.25), (clip(-10, 1), -1, 1)],
)
def test_what_a_video_has_of_a_goal(video, kept, free):
    for weight in (0.5, 0.8):
        has = judge(Goal(("pan",), ("object",), weight))(video)
        assert (has.kept, has.free) == pytest.approx((kept, free))
        assert has.trade == pytest.approx(weight * kept + (1 - weight) * free)
        assert has.parts == pytest.approx({"pan": kept, "object": free})


def test_the_plain_target_is_where_a_search_begins():
    assert judge().plain() == judge()(clip(0, 1))


def test_a_video_that_is_no_number_serves_nothing():
    has = judge()(clip(math.nan, 1))
    assert has.trade == has.kept == has.free == -math.inf


def test_measures_in_which_source_and_plain_target_are_alike_are_refused():
    with pytest.raises(GoalError, match=r"hardly differ in pan: by 0.5 px, and less than 1 px says nothing"):
        Judge(GOAL, MEASURES, clip(0.5, 0), clip(0, 1))
    with pytest.raises(GoalError, match="hardly differ in object"):
        Judge(GOAL, MEASURES, clip(9, 1), clip(0, 1))
    with pytest.raises(GoalError, match="hardly differ in pan: by nan"):
        Judge(GOAL, MEASURES, clip(math.nan, 0), clip(0, 1))


def test_the_front_is_what_no_other_betters_in_both():
    points = [(0, 1), (0.5, 0.5), (0.4, 0.4), (0.5, 0.2), (1, 0), (-1, 1), (-math.inf, -math.inf)]
    assert front([Traded(kept, free, 0, {}) for kept, free in points]) == [0, 1, 4]
    assert front([]) == []


def test_pixel_measures_tell_place_from_colour():
    """A clip whose halves change places has its colours still, and nothing of where and what moves."""
    generator = torch.Generator().manual_seed(0)
    plain = torch.rand(1, 3, 4, 32, 32, generator=generator).cumsum(-1) / 32
    moved = plain.flip(-1).roll(1, 2)
    table = pixel_measures()
    assert {"motion", "edges", "ssim", "palette"} <= set(table)
    for name, measure in table.items():
        assert measure.likeness(plain, plain) == pytest.approx(measure.top, abs=1e-5), name
        if name != "palette":
            assert measure.likeness(plain, moved) < measure.top - measure.least, name
    assert table["palette"].likeness(plain, moved) == 1
    assert table["palette"].likeness(plain, 1 - plain) < 0.5


def test_palettes_are_histograms_of_all_frames():
    red, blue = torch.zeros(2, 1, 3, 2, 4, 4).unbind()
    red[:, 0], blue[:, 2] = 1, 1
    half = torch.cat([red[:, :, :1], blue[:, :, :1]], 2)
    found = metrics.palette_overlap(torch.cat([red, red, half]), torch.cat([red, blue, red]))
    assert found.tolist() == [1, 0, 0.5]


def test_without_its_package_flip_is_no_measure(monkeypatch):
    monkeypatch.setattr("vdit_core.sweep.pixel_measures.find_spec", lambda name: None)
    assert "flip" not in pixel_measures()

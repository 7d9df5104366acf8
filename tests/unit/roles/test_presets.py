"""Roles of a run and of recordings, and the masks that presets make of them."""

from __future__ import annotations

import re

import planted_heads as planted
import pytest
import torch
from PIL import Image
from synthetic_host import SyntheticHost

from vdit_core.call import ModelSignature, Run, TokenGrid
from vdit_core.head_mask import HeadMask
from vdit_core.recording.recorder import Recorder
from vdit_core.recording.store import Evaluation, Key
from vdit_core.roles.classify import FIRST, LAYOUT, MIXED, MOTION, ROLES, TRACKER, classify, head_roles
from vdit_core.roles.describe import as_json, as_text
from vdit_core.roles.look import look
from vdit_core.roles.observer import ObservedHeads, RoleObserver, RolesError, from_store, table
from vdit_core.roles.pictures import roles_picture
from vdit_core.roles.presets import PRESETS, heads_of, preset_mask
from vdit_core.roles.statistics import head_figures
from vdit_core.selection import Indices, Selection, SelectionError

GRID = TokenGrid(4, 5, 6)
#: By layer, what its heads look at: (moving, tracker), (layout, first frame), (slowly moving, mixed).
LOOKS = (
    (planted.moving(GRID, 0, 1), planted.moving(GRID, 0, 0)),
    (planted.own_place(GRID), planted.first_frame(GRID)),
    (planted.moving(GRID, 0, 0) | planted.moving(GRID, 0, 1), torch.zeros(120, 120, dtype=torch.bool)),
)


def seen(layers=(0, 1, 2), grid: TokenGrid = GRID) -> ObservedHeads:
    run = Run(ModelSignature(3, 2, grid.tokens), grid, (1.0,), ("cond",), 1, torch.float32)
    calls = {}
    for layer in layers:
        pairs = [planted.head(grid, at) for at in LOOKS[layer]]
        q, k = (torch.stack([pair[n] for pair in pairs])[None] for n in (0, 1))
        calls[Key(Evaluation(1.0), "cond", layer)] = head_figures(q, k, grid)
    return ObservedHeads(run, (0, 1), calls)


@pytest.fixture(scope="module")
def roles():
    return head_roles(seen())


def test_presets_choose_by_role(roles):
    assert list(roles.roles.values()) == [MOTION, TRACKER, LAYOUT, FIRST, MOTION, MIXED]
    found = {name: heads_of(name, roles) for name in PRESETS}
    assert found == {
        "camera only": [(0, 0), (2, 0)],
        "motion only": [(0, 0), (0, 1), (2, 0)],
        "layout only": [(1, 0)],
        "all but identity": [(0, 0), (0, 1), (1, 1), (2, 0), (2, 1)],
    }


def test_the_camera_takes_half_of_a_layer_those_that_sway_most():
    """Of three moving heads of a layer of four: one moves alike in both videos."""
    run = Run(ModelSignature(1, 4, GRID.tokens), GRID, (1.0,), ("cond",), 1, torch.float32)
    still = planted.own_place(GRID)

    def video(*shifts):
        pairs = [planted.head(GRID, planted.moving(GRID, 0, shift)) for shift in shifts]
        pairs.append(planted.head(GRID, still))
        q, k = (torch.stack([pair[n] for pair in pairs])[None] for n in (0, 1))
        return ObservedHeads(run, (0, 1, 2, 3), {Key(Evaluation(1.0), "cond", 0): head_figures(q, k, GRID)})

    found = classify(table([video(1, 2, 2), video(-1, 2, -1)]))
    assert list(found.roles.values()) == [MOTION, MOTION, MOTION, LAYOUT]
    assert [round(found.sway((0, head)), 1) for head in range(3)] == [1.0, 0.0, 1.5]
    assert heads_of("camera only", found) == [(0, 0), (0, 2)]
    alone = classify(table([video(1, 2, 2)]))
    assert [round(alone.sway((0, head)), 1) for head in range(3)] == [1.0, 2.0, 2.0]


def test_a_mask_is_made_for_the_model_of_the_roles(roles):
    mask = preset_mask("camera only", roles, strength=0.5)
    assert mask == HeadMask("0@0:0.5, 2@0:0.5", layers=3, heads=2)
    assert mask.resolve(3, 2) == {0: (0.5, 0.0), 2: (0.5, 0.0)}
    with pytest.raises(SelectionError, match="made for a model of 3 layers"):
        mask.resolve(9, 2)


def test_no_head_of_a_role_is_an_empty_mask():
    still = classify(table([seen(layers=(1,))]))
    assert str(preset_mask("camera only", still)) == "none"
    assert "no head has this role" in as_text(still)


@pytest.mark.parametrize(
    ("name", "strength", "error", "message"),
    [
        ("camera", 1.0, RolesError, "There is no preset 'camera'; the presets are camera only, motion only"),
        ("camera only", 1.5, SelectionError, "1.5"),
    ],
)
def test_what_is_no_preset_is_named(roles, name, strength, error, message):
    with pytest.raises(error, match=message):
        preset_mask(name, roles, strength)


def test_every_preset_has_roles_that_there_are():
    assert all(set(of.roles) <= set(ROLES) and of.meaning for of in PRESETS.values())


def test_the_same_of_a_run_and_of_its_recording():
    host = SyntheticHost()
    observer, recorder = RoleObserver(), Recorder()
    host.run(0, observer, recorder)
    of_run, of_store = table([observer.result]), table([from_store(recorder.store)])
    assert observer.verdict().text.startswith("observed ")
    for name, value in of_run.figures.items():
        torch.testing.assert_close(getattr(of_store.figures, name), value, rtol=0, atol=1e-5)
    assert of_run.calls == of_store.calls > 0


def test_two_recordings_are_described_together():
    host = SyntheticHost()
    recorder = Recorder()
    host.run(0, recorder)
    once, twice = look([recorder.store]), look([recorder.store] * 2)
    assert twice.roles == once.roles
    assert len(twice.table.moved) == 2 * len(once.table.moved)
    torch.testing.assert_close(twice.table.speed, once.table.speed)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([seen(layers=(0, 1))], r"different layers: \[0, 1, 2\] and \[0, 1\]"),
        ([seen((1,), TokenGrid(4, 6, 5))], "different grids: 4 x 5 x 6"),
        ([ObservedHeads(seen((0,)).run, (0, 1))], "There is no attention call"),
    ],
)
def test_recordings_that_do_not_go_together_are_refused(others, message):
    with pytest.raises(RolesError, match=message):
        table([seen(), *others])


def test_a_selection_of_the_recording_is_described():
    host = SyntheticHost()
    recorder = Recorder()
    host.run(0, recorder)
    found = look([recorder.store], Selection(Indices("1"), heads=Indices("0")))
    assert list(found.roles) == [(1, 0)]
    with pytest.raises(SelectionError):
        look([recorder.store], Selection(Indices("77")))


def test_table_and_report_name_every_head(roles):
    text, found = as_text(roles), as_json(roles)
    assert re.search(r"^\| 0@0 +\| motion +\|", text, re.M)
    assert "1.00 (+0.00, +1.00)" in text
    assert "camera only (the heads that move most with the video, at most half of a layer's): 0@0, 2@0" in text
    assert [(head["layer"], head["head"], head["role"]) for head in found["heads"]][3] == (1, 1, FIRST)
    assert found["presets"]["layout only"] == "1@0"
    assert found["uniform"]["first"] == pytest.approx(0.25)


def test_a_picture_has_a_cell_for_each_head(roles):
    plain, framed = (roles_picture(roles, "roles", chosen) for chosen in ((), [(0, 0)]))
    assert isinstance(plain, Image.Image)
    assert plain.size == framed.size
    assert plain.tobytes() != framed.tobytes()

"""Head roles of the demo model, `vdit roles`, and the table of what presets keep."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from vdit_core.cli import main
from vdit_core.demo import roles as demo
from vdit_core.demo.roles import ALL, CAMERA, PLAIN, RANDOM, Trial, differences, masks, rows
from vdit_core.demo.roles_report import DRAWN, PAN, as_text, tried_picture
from vdit_core.hosts.diffusers import attach
from vdit_core.recording.recorder import Recorder
from vdit_core.roles.presets import PRESETS, heads_of
from vdit_core.selection import Indices, Selection

CAR = "A car is driving on the highway"


@pytest.fixture(scope="module")
def roles(demo_model):
    return demo.measure(demo_model, seeds=demo.ROLE_SEEDS[:3], steps=10)


def test_the_demo_model_has_heads_of_both_kinds_along_time(roles):
    """Those of layer 5 look at the same place in every video; that of layer 7 follows the video."""
    assert roles.roles[5, 0] == roles.roles[5, 1] == "tracker"
    assert roles.roles[7, 1] == "motion"
    assert roles.roles[3, 0] == roles.roles[8, 0] == "layout"
    assert max(roles.speed((5, head)) for head in (0, 1)) < 0.01 < 0.03 < roles.speed((7, 1))
    assert (7, 1) in heads_of(CAMERA, roles)


def test_random_heads_are_as_many_other_ones(roles):
    camera = set(heads_of(CAMERA, roles))
    drawn = [frozenset(masks(roles, seed)[RANDOM].resolve(9, 2)) for seed in range(8)]
    for seed in range(8):
        found = masks(roles, seed)[RANDOM].resolve(9, 2)
        heads = {(layer, head) for layer, of in found.items() for head, strength in enumerate(of) if strength}
        assert len(heads) == len(camera)
        assert not heads & camera
    assert len(set(drawn)) > 1
    assert str(masks(roles, 3)[RANDOM]) == str(masks(roles, 3)[RANDOM])


def test_trials_are_what_a_plain_run_gives(demo_model, probe, roles):
    """Without a mask the target is the stock model's; with all heads it comes near the source's camera."""
    found, clips = demo.trials(demo_model, probe, roles, 2, ["dog"], [PLAIN, ALL], steps=6)
    alone = demo_model.generate(["A dog is running on the grass"], [2], steps=6)
    assert [(trial.variant, trial.mask) for trial in found] == [(PLAIN, "none"), (ALL, "all")]
    assert clips.shape == (3, 3, 17, 128, 128)
    torch.testing.assert_close(clips[1:2], alone, rtol=0, atol=2e-3)
    assert found[1].distances["pan"] < found[0].distances["pan"]


def trial(variant, seed, pan, edges, pair="dog", colour="black"):
    distances = {"x": 1.0, "y": 0.0, "size": 0.0, "horizon": 2.0, "pan": pan}
    return Trial(pair, seed, variant, "none", distances, edges, 10, colour, 1.0)


TRIED = [
    *(trial(PLAIN, seed, pan, 5.0) for seed, pan in enumerate((10.0, 20.0, 30.0))),
    *(trial(CAMERA, seed, pan, 4.5, colour=colour) for seed, (pan, colour) in enumerate(
        ((1.0, "black"), (2.0, "black"), (3.0, "brown")))),
    *(trial(RANDOM, seed, pan, 5.0) for seed, pan in enumerate((9.0, 20.0, 25.0))),
]  # fmt: skip


def test_rows_are_parts_of_the_plain_target_with_paired_errors():
    plain, camera, other = rows(TRIED)
    assert (plain.variant, camera.variant, other.variant) == (PLAIN, CAMERA, RANDOM)
    assert plain.pan_part == (1, 0)
    assert camera.pan_part == pytest.approx((0.1, 0), abs=1e-9)  # the same part for every seed
    assert camera.drawn == pytest.approx((0.9, 0))
    assert camera.alike == pytest.approx((0.9, 0))
    assert other.pan == pytest.approx(18)
    residuals = [9 - 0.9 * 10, 20 - 0.9 * 20, 25 - 0.9 * 30]
    error = math.sqrt(sum(r * r for r in residuals) / 2 / 3) / 20
    assert other.pan_part == pytest.approx((0.9, error))


def test_differences_are_paired():
    found = differences(TRIED)["dog"]
    assert found["pan"][0] == pytest.approx((8 + 18 + 22) / 3)
    assert found["drawn"] == pytest.approx((0.1, 0))
    assert differences([one for one in TRIED if one.variant != RANDOM]) == {}


def test_a_variant_counts_where_its_plain_target_is():
    assert [row.seeds for row in rows([*TRIED, trial(CAMERA, 7, 0.0, 1.0)])] == [3, 3, 3]
    (single,) = (row for row in rows([TRIED[0], TRIED[3]]) if row.variant == CAMERA)
    assert math.isinf(single.pan_part[1])
    assert "dog | camera only | 1 |" in as_text([TRIED[0], TRIED[3]])


def test_the_table_is_drawn():
    assert len(tried_picture(TRIED).getcolors(2**24)) > 50
    text = as_text(TRIED)
    assert "| dog | plain target | 3 | 20.0 ± 5.8 | 100% | 100% | 100% |" in text
    assert "dog, random heads less camera only, paired over seeds: pan +16.0 ± 4.2 px, outlines +10% ± 0%" in text


def test_roles_of_the_demo_model(tmp_path, capsys):
    assert main(["roles", "--steps", "4", "--seeds", "1", "--out", str(tmp_path)]) == 0
    names = {"roles.png", "roles.json", "tried.png", "tried.json", "truck.png", "dog.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    tried = json.loads((tmp_path / "tried.json").read_text())
    assert [trial["variant"] for trial in tried[:7]] == [PLAIN, ALL, *PRESETS, RANDOM]
    assert len(json.loads((tmp_path / "roles.json").read_text())["heads"]) == 18
    with Image.open(tmp_path / "dog.png") as picture:
        assert picture.height > 8 * 192
    said = capsys.readouterr().out
    assert "- camera only (the heads that move most with the video, at most half of a layer's):" in said
    assert "| dog | all heads | 1 |" in said


def test_roles_of_recordings(tmp_path, demo_model, capsys):
    files = []
    for seed in (1, 2):
        recorder = Recorder(Selection(Indices("4-8"), steps=Indices("0, 2"), branches="cond"))
        with attach(demo_model.pipe, recorder):
            demo_model.sample([CAR], [seed], steps=3)
        files.append(tmp_path / f"{seed}.safetensors")
        recorder.store.save(files[-1])
    out = tmp_path / "out"
    assert main(["roles", *map(str, files), "--layers", "5-8", "--queries", "128", "--out", str(out)]) == 0
    found = json.loads((out / "roles.json").read_text())
    assert (found["videos"], found["calls"], len(found["heads"])) == (2, 16, 8)
    assert {path.name for path in out.iterdir()} == {"roles.png", "roles.json"}
    assert main(["roles", str(files[0]), "--layers", "0-3", "--out", str(out)]) == 2
    assert "Nothing of layers 0-3" in capsys.readouterr().err


def test_a_preset_that_there_is_not_is_named(tmp_path, capsys):
    assert main(["roles", "--preset", "zoom", "--out", str(tmp_path)]) == 2
    assert "There is no preset 'zoom'; the presets are camera only" in capsys.readouterr().err


def test_the_page_has_the_table_of_the_trials():
    """docs/head_roles.md, of the trials that benchmarks/head_roles.py wrote."""
    docs = Path(__file__).parents[2] / "docs"
    found = [Trial(**trial) for trial in json.loads((docs / "head_roles_trials.json").read_text())]
    assert as_text(found) in (docs / "head_roles.md").read_text(encoding="utf-8")
    for row in rows(found):
        if row.variant in (PLAIN, CAMERA, RANDOM):
            assert row.seeds >= 16
    camera = {row.pair: row for row in rows(found) if row.variant == CAMERA}
    assert all(row.drawn[0] >= DRAWN for row in camera.values())
    assert camera["dog"].pan_part[0] <= PAN

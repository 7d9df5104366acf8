"""`vdit sinks` on the demo model: it has none; planted ones are found where they are, and their absence shows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from PIL import Image

from vdit_core import cli
from vdit_core.demo.sinks import PLANTED
from vdit_core.hosts.diffusers import attach
from vdit_core.recording.recorder import Recorder
from vdit_core.selection import Indices, Selection
from vdit_core.sinks import control

STEPS = "4"
ACTIONS = ("mask", "mean")  # one for keys and one for heads: each is three videos more


def sinks(folder, *options: str) -> dict[str, Any]:
    """Run the command; returns what it wrote as JSON."""
    assert cli.main(["sinks", "--out", str(folder), "--steps", STEPS, *options]) == 0
    return json.loads((folder / "sinks.json").read_text())


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return folder, sinks(folder)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(control, "ACTIONS", ACTIONS)
        return folder, sinks(folder, "--plant")


def test_the_demo_model_has_none(plain):
    folder, found = plain
    assert found["findings"]["sinks"] == []
    assert found["ablations"] == []
    assert 2 < max(max(row) for row in found["findings"]["peak"]) < 16
    page = (folder / "index.html").read_text()
    assert "No sinks: in none of 18 heads" in page
    assert "Do they matter?" not in page


def test_planted_ones_are_found_all_and_only_these(planted):
    _, found = planted
    masses = {(s["layer"], s["head"], s["token"]): s["mass"] for s in found["findings"]["sinks"]}
    expected = {(*head, token): mass for head, tokens in PLANTED.items() for token, mass in tokens.items()}
    assert set(masses) == set(expected)
    assert masses == pytest.approx(expected, rel=0.1)
    for sink in found["findings"]["sinks"]:
        assert sink["place"] == [0, *divmod(sink["token"], 8)]
        assert sink["present"] == 1


def test_without_them_the_video_is_another_and_random_keys_do_not_matter(planted):
    """They were planted while the video was sampled, so it has grown around them."""
    _, found = planted
    done = {one["action"]: one for one in found["ablations"]}
    assert tuple(done) == ACTIONS
    assert done["mask"]["matters"]
    assert all(control["psnr"] > done["mask"]["sinks"]["psnr"] + 6 for control in done["mask"]["random others"])
    assert done["mask"]["moved"] == []


def test_page_pictures_and_videos_are_written(plain, planted):
    maps = {f"layer-{layer}-head-{head}.png" for layer, head in PLANTED}
    for folder, _ in (plain, planted):
        page = (folder / "index.html").read_text()
        written = {file.name for file in folder.iterdir()} - {"index.html", "sinks.json"}
        assert all(f'src="{name}"' in page for name in written)
        for name in written:
            if name.endswith(".png"):
                with Image.open(folder / name) as picture:
                    assert min(picture.size) >= 300
    assert written == maps | {"heads.png", "steps.png"} | {f"{action}.mp4" for action in ACTIONS}
    assert all((folder / f"{action}.mp4").stat().st_size > 10_000 for action in ACTIONS)


def test_of_a_recording_the_same_is_found(demo_model, planted, tmp_path):
    """Without values, so without what the sinks write; and with nothing to sample again."""
    recorder = Recorder(Selection(layers=Indices("3"), branches="cond"))
    with attach(demo_model.pipe, recorder):
        demo_model.sample(["A car is driving on the highway"], [1], steps=int(STEPS))
    recorder.store.save(tmp_path / "car.safetensors")
    found = sinks(tmp_path / "out", "--ratio", "2.5", str(tmp_path / "car.safetensors"))
    assert found["findings"]["layers"] == [3]
    assert found["findings"]["sinks"]
    assert all(sink["value_norm"] is None for sink in found["findings"]["sinks"])
    assert "their values were not recorded" in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--ratio", "1"], "write a number above 1"),
        (["none.safetensors", "--plant"], "--plant is for the demo model"),
        (["none.safetensors"], "none.safetensors"),
    ],
)
def test_what_cannot_be_meant_is_named(tmp_path, capsys, arguments, says):
    assert cli.main(["sinks", "--out", str(tmp_path), *arguments]) == 2
    assert says in capsys.readouterr().err

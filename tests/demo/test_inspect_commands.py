"""`vdit structure` and `vdit compare`, of the demo model and of recordings."""

from __future__ import annotations

import json

import av
import pytest
from PIL import Image

from vdit_core.cli import main
from vdit_core.hosts.diffusers import attach
from vdit_core.recording.recorder import Recorder
from vdit_core.selection import Indices, Selection

CAR, RED = "A car is driving on the highway", "A red car is driving on the highway"


@pytest.fixture(scope="module")
def recordings(demo_model, tmp_path_factory):
    """Three files: a source, another prompt, and another seed; layers 2 to 4 of two steps."""
    folder, files = tmp_path_factory.mktemp("recordings"), []
    for prompt, seed in ((CAR, 1), (RED, 1), (CAR, 2)):
        recorder = Recorder(Selection(Indices("2-4"), steps=Indices("0, 2"), branches="cond"))
        with attach(demo_model.pipe, recorder):
            demo_model.sample([prompt], [seed], steps=4)
        files.append(folder / f"{len(files)}.safetensors")
        recorder.store.save(files[-1])
    return list(map(str, files))


def test_structure_of_a_clip(tmp_path, capsys):
    assert main(["structure", "--steps", "3", "--layer", "5", "--out", str(tmp_path)]) == 0
    pictures = {"map.png", "band.png", "frames.png", "locality.png", "needed.png"}
    assert {path.name for path in tmp_path.iterdir()} == pictures | {"steps.mp4", "structure.json"}
    for name in pictures:
        with Image.open(tmp_path / name) as picture:
            assert len(picture.convert("RGB").getcolors(2**24)) > 100
    with av.open(str(tmp_path / "steps.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 3
    found = json.loads((tmp_path / "structure.json").read_text())
    assert found["maps"] == 9 * 3 * 2
    assert found["layers"]["8"]["same_frame"] > 2 * found["uniform"]["same_frame"]
    said = capsys.readouterr().out
    assert "| (uniform) |" in said
    assert "keys for 95 %" in said
    heads = found["needed_by_head"]
    assert (heads["layers"], heads["heads"], heads["mass"]) == (list(range(9)), [0, 1], 0.95)
    for layer, values, errors in zip(heads["layers"], heads["values"], heads["errors"], strict=True):
        assert sum(values) / 2 == pytest.approx(found["layers"][str(layer)]["needed"], abs=1e-4)
        assert min(errors) > 0


def test_all_queries_means_those_of_the_strongest_keys_too(tmp_path, recordings, capsys):
    assert main(["structure", recordings[0], "--queries", "all", "--layers", "3", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "structure.json").read_text())
    assert (found["queries"], found["top_queries"], found["layers"]["3"]["errors"]) == ("all", "all", {})
    assert "errors" not in found["needed_by_head"]
    assert "all queries of each." in capsys.readouterr().out


def test_structure_of_a_recording(tmp_path, recordings):
    chosen = ["--queries", "128", "--head", "1", "--rows", "0-9", "--columns", "64-83"]
    assert main(["structure", recordings[0], *chosen, "--branch", "all", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "structure.json").read_text())
    assert (found["queries"], list(found["layers"])) == (128, ["2", "3", "4"])
    assert found["layers"]["3"]["errors"]["same_frame"] > 0
    with Image.open(tmp_path / "band.png") as picture:
        assert picture.width > picture.height, "twice as many columns as rows"


def test_compare_recordings(tmp_path, recordings, capsys):
    first, second, baseline = recordings
    steps = ["--window", "all", "--out", str(tmp_path)]
    assert main(["compare", first, second, "--baseline", baseline, *steps]) == 0
    found = json.loads((tmp_path / "compare.json").read_text())
    assert "Rank correlation of the heads by the keys that hold 95 %" in found["verdict"]
    assert 0.5 < found["compared"]["needed"]["rank_correlation"] <= 1
    cosine = [found[kind]["means"]["measured"]["cosine"] for kind in ("compared", "baseline")]
    shuffled = found["compared"]["means"]["shuffled"]["cosine"]
    assert cosine[0] > cosine[1] > shuffled
    assert found["verdict"] in capsys.readouterr().out
    assert (tmp_path / "likeness.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["structure", "{0}", "--layer", "5"], "There is no map of layer 5, branch 'cond'; there are layers [2, 3, 4]"),
        (
            ["structure", "{0}", "--queries", "9"],
            "9 sampled queries: of a map on 5 x 8 x 8 = 320 tokens there must be at least 64",
        ),
        (["structure", "{0}", "--rows", "9-320"], "rows 9 to 320 do not lie within the map's 320 tokens, 0 to 319"),
        (["structure", "{0}", "--branch", "uncond"], "Branch 'uncond' was not recorded; the store holds cond"),
        (["compare", "--baseline", "{2}"], "is compared with two recordings, and none is given"),
        (["structure", "nowhere.safetensors"], "There is no attention store at nowhere.safetensors"),
        (["compare", "{0}"], "1 recordings given: two are compared (a third as --baseline)"),
        (["compare", "{0}", "{1}", "--window", "1"], "Nothing of layers all, steps 1, branch cond was recorded"),
    ],
)
def test_mistakes_are_one_line(tmp_path, recordings, capsys, arguments, message):
    assert main([word.format(*recordings) for word in arguments] + ["--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said

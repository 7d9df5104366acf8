from __future__ import annotations

import json
import os

import av
import pytest

from vdit_core.cli import main
from vdit_core.tiny_wan.files import FRAMES


def frames(path) -> tuple[int, int, int]:
    """Number, width and height of a video's frames."""
    with av.open(str(path)) as video:
        decoded = list(video.decode(video=0))
    return len(decoded), decoded[0].width, decoded[0].height


def test_demo_writes_videos_pictures_report_and_page(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["demo", "--pairs", "red,dog", "--steps", "3", "--window", "0%-66%", "--out", str(out)]) == 0
    assert sorted(p.name for p in out.iterdir()) == [
        "dog.mp4",
        "dog.png",
        "index.html",
        "red.mp4",
        "red.png",
        "report.json",
    ]
    count, width, height = frames(out / "red.mp4")
    assert (count, width) == (FRAMES, 3 * 384 + 16)
    assert height >= 384 + 34  # a label may take several lines
    report = json.loads((out / "report.json").read_text())
    assert report["replaced_calls"] == report["expected_calls"] == 2 * 9 * 2 * 2
    assert report["seconds"] > 0
    pair = report["pairs"][0]
    assert (pair["source"], pair["target"]) == (
        "A car is driving on the highway",
        "A red car is driving on the highway",
    )
    assert pair["seeds"] == [1]
    distances = {"x", "y", "size", "horizon", "pan", "ssim", "edges"}
    assert set(pair["other_seed"]) == distances
    assert set(pair["plain"]) == set(pair["transfer"]) == distances | {"object", "colour", "place", "season"}
    page = (out / "index.html").read_text()
    assert "red.mp4" in page
    assert "A dog is running on the grass" in page
    assert "Replaced 72 of 72 calls" in capsys.readouterr().out


def test_generate_writes_one_clip(tmp_path, capsys):
    path = tmp_path / "new" / "clip.mp4"
    assert main(["generate", "a red car", "--seed", "3", "--steps", "2", "--out", str(path)]) == 0
    assert frames(path) == (FRAMES, 512, 512)
    assert capsys.readouterr().out.strip() == str(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "a purple car"], "does not know the word 'purple'"),
        (["generate", "a car", "--out", "clip.gif"], "not an .mp4"),
        (["generate", "a car", "--device", "cuda:99"], "no device 'cuda:99'"),
        (["generate", "a car", "--device", "foo"], "no device 'foo'"),
        (["generate", "a car", "--device", "meta"], "no device 'meta'"),
        (["generate", "a car", "--out", "taken/clip.mp4"], "taken is not a folder that can be written to"),
        (["demo", "--out", "taken"], "taken is not a folder that can be written to (File exists)"),
        (["demo", "--out", "taken/in"], "taken/in is not a folder that can be written to (Not a directory)"),
        (["demo", "--first-seed", str(2**64 - 1)], "are too large: the other seeds"),
        (["demo", "--pairs", "blue"], "no pair 'blue'"),
        (["demo", "--layers", "9-3"], "write 3-9"),
        (["demo", "--layers", "9"], "Layer 9 in '9' is out of range: there are 9 layers, 0 to 8"),
    ],
)
def test_mistakes_are_one_line_and_status_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").touch()
    assert main([*arguments, *(["--steps", "1"] if arguments[-1] == "9" else [])]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error
    assert error.startswith("vdit: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["demo", "--seeds", "0"],
        ["demo", "--steps", "-1"],
        ["demo", "--first-seed", "-1"],
        ["generate", "a car", "--seed", str(2**64)],
        ["what"],
        [],
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        main(arguments)


@pytest.mark.parametrize(
    ("load", "given", "policy"), [(2.0, None, "PASSIVE"), (0.1, None, None), (2.0, "ACTIVE", "ACTIVE")]
)
def test_threads_do_not_spin_beside_other_processes(monkeypatch, tmp_path, load, given, policy):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    monkeypatch.setenv("OMP_WAIT_POLICY", given or "")
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    main(["generate", "a car", "--out", "clip.gif"])
    assert os.environ.get("OMP_WAIT_POLICY") == policy

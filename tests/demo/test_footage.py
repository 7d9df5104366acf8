"""Edits of rendered clips by the demo model: the command, the truth, and that the page's table is the report's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from training.painter import render
from training.world import Scenes
from vdit_core import metrics
from vdit_core.cli import main
from vdit_core.demo import footage
from vdit_core.footage.config import EditConfig, FootageError
from vdit_core.reporting.labelled import frames
from vdit_core.reporting.video import read_clip, write_mp4
from vdit_core.selection import LayerMask
from vdit_core.tiny_wan.captions import Caption
from vdit_core.tiny_wan.files import CLIP_CAPTION
from vdit_core.transfer import TransferConfig

ROOT = Path(__file__).parents[2]
#: The rows of the page's table, by their names in the report.
METHODS = (
    "plain, guidance 5, change 1, maps none",
    "noised, guidance 5, change 1, maps all",
    "inversion, guidance 2, change 0.8, maps none",
    "inversion, guidance 2, change 0.8, maps all",
    "video-to-video, guidance 5, change 0.4, maps none",
    "video-to-video, guidance 5, change 0.4, maps all",
    "edit, guidance 1.5 to 2, change 0.6, maps none",
    "edit, guidance 1.5 to 2, change 0.9, maps none",
    "edit, guidance 1.5 to 2, change 0.9, finish, maps all",
    "edit, guidance 1.5 to 2, change 0.9, 2 draws, finish, maps all",
    "edit, guidance 1.5 to 2, change 0.9, maps all",
    "edit, guidance 1.5 to 3, change 0.8, maps all",
)
WINTER = f"{CLIP_CAPTION} in the winter"


def test_the_command_writes_edits(tmp_path, capsys):
    arguments = ["edit", "demo", CLIP_CAPTION, WINTER, "A red car is driving on the highway", "--steps", "3"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"edit_1.mp4", "edit_2.mp4", "edits.mp4", "edits.png"}
    assert read_clip(tmp_path / "edit_1.mp4").shape == (3, 17, 512, 512)
    assert "replaced 36 of 36 calls" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("clip", "said"),
    [
        ("nowhere.mp4", "No such file"),
        ("text.mp4", "not a video that can be read"),
        ("short.mp4", r"13 or 17"),
        ("wide.mp4", "17 frames of 256 × 128 px. The demo model knows"),
    ],
)
def test_what_is_no_clip_of_its_world_is_refused(tmp_path, capsys, clip, said):
    (tmp_path / "text.mp4").write_text("not a video")
    blank = torch.zeros(3, 17, 128, 256)
    write_mp4(frames(blank), tmp_path / "wide.mp4")
    write_mp4(frames(blank[:, :16, :, :128]), tmp_path / "short.mp4")
    assert main(["edit", str(tmp_path / clip), CLIP_CAPTION, WINTER, "--out", str(tmp_path / "out")]) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_larger_clip_is_scaled_down(tmp_path):
    clip = footage.read("demo")[0]
    write_mp4([picture.resize((256, 256)) for picture in frames(clip)], tmp_path / "large.mp4", crf=4)
    found = footage.read(str(tmp_path / "large.mp4"))
    assert found.shape == (1, 3, 17, 128, 128)
    assert float(metrics.psnr(found, clip[None])) > 30


def test_settings_that_leave_nothing_are_refused(demo_model):
    with pytest.raises(FootageError, match=r"leaves none of 3 steps"):
        footage.edit(demo_model, footage.read("demo"), CLIP_CAPTION, [WINTER], EditConfig(change=0.1), steps=3)


def test_an_edit_comes_near_to_the_truth(demo_model):
    """A scene that nothing was trained or chosen on. The clip's maps bring the winter nearer."""
    clip, truth = (render(Scenes.sample([700_003], [Caption("car", season=s)])) for s in ("summer", "winter"))
    found, report = footage.edit(demo_model, clip, CLIP_CAPTION, [WINTER], steps=20)
    alone, _ = footage.edit(demo_model, clip, CLIP_CAPTION, [WINTER], where=TransferConfig(LayerMask("none")), steps=20)
    before, after, without = (float(metrics.psnr(truth, other.cpu())) for other in (clip, found, alone))
    assert before < 12
    assert after > 24
    assert after > without
    assert report.replaced == report.expected == 9 * 18 * 2


def test_the_page_s_table_is_the_report_s():
    means = json.loads((ROOT / "docs" / "footage_report.json").read_text(encoding="utf-8"))["means"]
    page = (ROOT / "docs" / "footage.md").read_text(encoding="utf-8")
    table = page[page.index("| method | red car") :]
    rows = [
        [cell.strip().strip("*") for cell in line.strip("|").split("|")]
        for line in table.split("\n\n")[0].splitlines()[2:]
    ]
    for method, (_, red, winter, *others) in zip(METHODS, rows, strict=True):
        of = means[method]
        for edit, said in (("red", red), ("winter", winter)):
            cell = ", ".join(f"{of[edit][name]:.1f}" for name in ("psnr", "outside", "x"))
            assert said.replace("*", "") == cell, (method, edit)
        assert others == [f"{of[edit]['psnr']:.1f}" for edit in ("summer", "truck", "dog")], method
    default = means["edit, guidance 1.5 to 2, change 0.9, finish, maps all"]
    assert default["red"]["psnr"] >= 30
    assert default["winter"]["psnr"] >= 27
    assert default["winter"]["psnr"] >= 1 + max(
        of["winter"]["psnr"] for name, of in means.items() if name.endswith("none")
    )
    assert default["red"]["psnr"] >= 4 + max(
        of["red"]["psnr"] for name, of in means.items() if name.startswith("video")
    )
    assert max(default[edit][error] for edit in ("red", "winter", "summer", "truck") for error in ("x", "pan")) <= 0.5

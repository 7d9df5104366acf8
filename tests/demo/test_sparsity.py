"""`vdit sparsity` on the demo model: the paper's finding is in it, and a measured profile pays."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from vdit_core import cli
from vdit_core.sparse.profile import SparseProfile

STEPS = "8"


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sparsity")
    assert cli.main(["sparsity", "--out", str(folder), "--steps", STEPS, "--local-only"]) == 0
    assert cli.main(["sparsity", "report", "--out", str(folder), "--steps", STEPS, "--keeps", "30"]) == 0
    return folder


def test_the_profile_says_what_it_was_measured_on(measured):
    profile = SparseProfile.load(measured / "profile.json")
    assert profile.measured["steps"] == 8
    assert profile.measured["grid"] == "5 x 8 x 8 = 320 tokens"
    assert profile.densities().mean() == pytest.approx(0.3)


def test_a_few_heads_need_nearly_all_of_their_map(measured):
    """The paper: a few layers must not be masked, though the others tolerate it."""
    densities = SparseProfile.load(measured / "profile.json").densities()
    assert (densities > 2 * densities.mean()).sum() >= 2
    assert (densities < densities.mean()).mean() > 2 / 3


def test_at_equal_mean_density_the_profile_beats_the_uniform_setting(measured):
    uniform, profiled = json.loads((measured / "report.json").read_text())["videos"]
    assert uniform["density"] == pytest.approx(0.3, abs=0.01)
    assert profiled["density"] == pytest.approx(0.3, abs=0.01)
    assert profiled["psnr"] > uniform["psnr"] + 3


def test_pictures_and_a_video_are_written(measured):
    for name in ("profile.png", "pareto.png"):
        with Image.open(measured / name) as picture:
            assert min(picture.size) >= 400
    assert (measured / "side_by_side.mp4").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--keep", "0"], "0.0 is not a percentage"),
        (["--keeps", "30,130"], "130 is not a percentage"),
        (["--method", "block top-p", "--local-only"], "'block top-p' is not measured"),
        (["report", "--profile", "none.json"], "There is no sparsity profile at none.json"),
        (["report", "--profile", "Wan2.1 14B T2V"], "of 40 layers x 40 heads x 128; this one has 9 layers x 2 heads"),
    ],
)
def test_what_cannot_be_meant_is_named(tmp_path, capsys, arguments, says):
    assert cli.main(["sparsity", "--out", str(tmp_path), *arguments]) == 2
    assert says in capsys.readouterr().err

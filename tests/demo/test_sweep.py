"""The layer sweep on the demo model: `vdit sweep`, and the same sweep on Ray workers."""

from __future__ import annotations

import json
import os

import pytest
import torch
from PIL import Image

from vdit_core.cli import main
from vdit_core.demo import sweep as demo
from vdit_core.hosts.diffusers import attach
from vdit_core.selection import LayerMask
from vdit_core.sweep.folder import SweepFolder
from vdit_core.sweep.run import run
from vdit_core.sweep.scores import LIKENESS, measure
from vdit_core.transfer import LiveTransfer, Where

SOURCE = "A car is driving on the highway"
TARGET = "A red car is driving on the highway"
SAMPLING = {"seed": 3, "steps": 2, "guidance": 5.0}


@pytest.fixture(scope="module")
def plan(demo_model):
    return demo.plan(demo_model, SOURCE, TARGET, **SAMPLING)


@pytest.fixture(scope="module")
def latents(demo_model, plan) -> torch.Tensor:
    return run(plan, demo.sampler(demo_model, **SAMPLING))


def test_each_row_is_the_target_under_its_mask(demo_model, plan, latents):
    def alone(prompts, transfer):
        with attach(demo_model.pipe, transfer):
            return demo_model.sample(prompts, [3] * len(prompts), steps=2)

    expected = demo_model.sample([SOURCE, TARGET], [3, 3], steps=2)
    torch.testing.assert_close(latents[:2], expected, rtol=1e-3, atol=1e-3)
    for layer in (0, 4, 8):
        row = alone([SOURCE, TARGET], LiveTransfer(Where(LayerMask(str(layer)))))[1]
        torch.testing.assert_close(latents[2 + layer], row, rtol=1e-3, atol=1e-3)
    assert all((row - latents[1]).abs().max() > 0.01 for row in latents[2:])


def test_ray_workers_give_the_same_scores(demo_model, plan, latents, tmp_path):
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'comfyui-vdit-attention[ray]'")
    from vdit_core.sweep.workers import run_on_ray

    finished = []

    def make_sample():
        (tmp_path / f"worker-{os.getpid()}").touch()
        return demo.worker("cpu", **SAMPLING)

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        spread = run_on_ray(
            plan,
            make_sample,
            SweepFolder(tmp_path, plan),
            rows_per_batch=5,
            on_batch=finished.append,
        )
    finally:
        ray.shutdown()
    assert sorted(finished) == [(0, 1, 2, 3, 4), (0, 5, 6, 7, 8), (0, 9, 10)]
    here, there = (measure(plan, demo.decode(demo_model, x)).as_dict() for x in (latents, spread))
    assert here["suggested"] == there["suggested"]
    for a, b in zip(here["rows"], there["rows"], strict=True):
        assert a["to_source"] == pytest.approx(b["to_source"], abs=1e-3)
        assert a["share"] == pytest.approx(b["share"], abs=1e-3)
    assert len(SweepFolder(tmp_path, plan).load()) == 11
    assert len(list(tmp_path.glob("worker-*"))) == 2, "each worker loads the model once"


def test_without_a_cluster_ray_is_one_line(tmp_path, capsys):
    pytest.importorskip("ray", reason="ray is not installed: pip install 'comfyui-vdit-attention[ray]'")
    assert main(["sweep", "--steps", "1", "--ray", "127.0.0.1:9", "--out", str(tmp_path)]) == 2
    assert "no Ray cluster at 127.0.0.1:9" in capsys.readouterr().err.strip().splitlines()[-1]


def test_sweep_writes_report_and_pictures_and_goes_on(tmp_path, capsys):
    out = tmp_path / "sweep"
    arguments = ["sweep", "--target", TARGET, "--steps", "2", "--rows-per-batch", "6", "--out", str(out)]
    assert main(arguments) == 0
    assert sorted(p.name for p in out.iterdir()) == ["bars.png", "latents", "plan.json", "sheet.png", "sweep.json"]
    report = json.loads((out / "sweep.json").read_text())
    assert len(report["rows"]) == 9
    assert [row["mask"] for row in report["rows"]] == [str(i) for i in range(9)]
    distances = {"x", "y", "size", "horizon", "pan"}
    for row in report["rows"]:
        assert set(row["to_source"]) == set(row["to_plain"]) == set(LIKENESS)
        assert set(row["more"]) == distances | {"object", "colour", "place", "season"}
    mask = LayerMask(report["suggested"]["mask"], made_for=report["suggested"]["layers"])
    assert mask.resolve(9)
    assert all(Image.open(out / name).width > 700 for name in ("bars.png", "sheet.png"))
    printed, progress = capsys.readouterr()
    assert "24/24" in progress.splitlines()[-1], "two batches of 6 and 6 videos, 2 steps each"
    assert f"Structure layers (*): {mask}." in printed
    assert "| layer 8" in printed

    lost = out / "latents" / "row-04.safetensors"
    lost.write_bytes(lost.read_bytes()[:-1])
    before = {p.name: p.stat().st_mtime_ns for p in (out / "latents").iterdir()}
    assert main(arguments) == 0
    after = {p.name: p.stat().st_mtime_ns for p in (out / "latents").iterdir()}
    assert [name for name in after if after[name] != before[name]] == ["row-04.safetensors"]
    again = json.loads((out / "sweep.json").read_text())
    assert again["rows"][4]["share"] == pytest.approx(report["rows"][4]["share"], abs=1e-3)
    assert f"{lost} is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mode", "every"], "no sweep 'every'"),
        (["--target", "a purple car"], "does not know the word 'purple'"),
        (["--rows-per-batch", "1"], "at least 2 rows per batch"),
        (["--window", "7"], "Step 7 in '7' is out of range"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(arguments, message, capsys, tmp_path):
    out = tmp_path / "sweep"
    assert main(["sweep", "--steps", "2", "--out", str(out), *arguments]) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not out.exists()

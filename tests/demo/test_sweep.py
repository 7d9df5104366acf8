"""The layer sweep on the demo model: `vdit sweep`, and the same sweep on Ray workers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from vdit_core.cli import main
from vdit_core.demo import sweep as demo
from vdit_core.hosts.diffusers import attach
from vdit_core.selection import LayerMask
from vdit_core.sweep.checkpoint import SweepFolder
from vdit_core.sweep.run import run, together
from vdit_core.sweep.scores import LIKENESS, measure
from vdit_core.tiny_wan.files import FRAMES, SIZE
from vdit_core.transfer import LiveTransfer, TransferConfig

SOURCE = "A car is driving on the highway"
TARGET = "A red car is driving on the highway"
ROOT = Path(__file__).parents[2]
SAMPLING = {"seed": 3, "steps": 2, "guidance": 5.0}


@pytest.fixture(scope="module")
def plan(demo_model):
    return demo.plan(demo_model, SOURCE, TARGET, **SAMPLING)


@pytest.fixture(scope="module")
def latents(demo_model, plan) -> torch.Tensor:
    return run(plan, demo.sampler(demo_model, **SAMPLING))


def quick(latents: torch.Tensor) -> torch.Tensor:
    """Clips of the VAE's shape without the VAE, which would take most of the time."""
    return F.interpolate(latents[:, :3].float(), size=(FRAMES, SIZE, SIZE)).sigmoid()


def test_each_row_is_the_target_under_its_mask(demo_model, plan, latents):
    def alone(prompts, transfer):
        with attach(demo_model.pipe, transfer):
            return demo_model.sample(prompts, [3] * len(prompts), steps=2)

    expected = demo_model.sample([SOURCE, TARGET], [3, 3], steps=2)
    torch.testing.assert_close(latents[:2], expected, rtol=1e-3, atol=1e-3)
    for layer in (0, 4, 8):
        row = alone([SOURCE, TARGET], LiveTransfer(TransferConfig(LayerMask(str(layer)))))[1]
        torch.testing.assert_close(latents[2 + layer], row, rtol=1e-3, atol=1e-3)
    assert all((row - latents[1]).abs().max() > 0.01 for row in latents[2:])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The address of a cluster of two CPUs that `ray start` started where there is a token; its home is its own."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'vdit-attention[ray]'")
    home = tmp_path_factory.mktemp("home")
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("5" * 64)
    with socket.socket() as probe_:
        probe_.bind(("127.0.0.1", 0))
        port = probe_.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(home), "OMP_NUM_THREADS": "1"}
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=2"]
    command += [f"--port={port}", "--include-dashboard=false", "--disable-usage-stats"]
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _wait_for(port, process, home / "log")
            yield f"127.0.0.1:{port}", environment
        finally:
            process.terminate()
            process.wait(60)


def _wait_for(port: int, process: subprocess.Popen, log: Path) -> None:
    for _ in range(600):
        with socket.socket() as probe_:
            if probe_.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def test_two_workers_give_the_same_scores_as_one(cluster, plan, latents, tmp_path):
    """`ray start`, then `vdit sweep --ray HOST:PORT`, as the README has it."""
    address, environment = cluster
    command = [sys.executable, "-m", "vdit_core.cli", "sweep", "--target", TARGET, "--seed", "3", "--steps", "2"]
    done = subprocess.run(
        [*command, "--guidance", "5", "--ray", address, "--out", str(tmp_path)],
        env=environment, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "vdit: 2 workers, 2 batches" in done.stderr
    assert len(json.loads((tmp_path / "sweep.json").read_text())["rows"]) == 9
    spread = together(plan, SweepFolder(tmp_path, plan).load())
    here, there = (measure(plan, quick(x)).as_dict() for x in (latents, spread))
    assert here["suggested"] == there["suggested"]
    for a, b in zip(here["rows"], there["rows"], strict=True):
        assert a["to_source"] == pytest.approx(b["to_source"], abs=1e-3)
        assert a["share"] == pytest.approx(b["share"], abs=1e-3)


#: What is wrong with a cluster, each in a process of its own: Ray has one state a process.
WRONG = """
import os, sys
from vdit_core.sweep.plan import Sweep
from vdit_core.sweep.ray_runner import run_on_ray

def dies():
    os._exit(1)

def fails():
    raise ValueError("no such model")

for make, options in ((dies, {}), (fails, {}), (dies, {"gpus": 1})):
    try:
        run_on_ray(Sweep("a", "b", 1), make, address=sys.argv[1], **options)
    except (ConnectionError, ValueError) as error:
        print(repr(error))
"""


def test_dead_workers_and_a_cluster_without_room_are_told(cluster):
    address, environment = cluster
    done = subprocess.run(
        [sys.executable, "-c", WRONG, address], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    died, failed, no_room = (line for line in done.stdout.splitlines() if "Error(" in line)
    assert "A worker died (ActorDiedError: " in died
    assert "no such model" in failed
    assert "The cluster has no room for a worker: each needs 1 GPU, 0 of 0 are free." in no_room


def test_without_a_cluster_ray_is_one_line(tmp_path, capsys):
    pytest.importorskip("ray", reason="ray is not installed: pip install 'vdit-attention[ray]'")
    assert main(["sweep", "--steps", "1", "--ray", "127.0.0.1:9", "--out", str(tmp_path)]) == 2
    assert "no Ray cluster at 127.0.0.1:9" in capsys.readouterr().err.strip().splitlines()[-1]


def test_sweep_writes_report_and_pictures_and_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "decode", lambda model, latents: quick(latents))
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
    assert all(0 <= layer < 9 for layer in mask.resolve(9))
    assert all(Image.open(out / name).width > 700 for name in ("bars.png", "sheet.png"))
    printed, progress = capsys.readouterr()
    assert "24/24" in progress.splitlines()[-1], "two batches of 6 and 6 videos, 2 steps each"
    assert "Structure layers (*): " in printed or "No layer stands out" in printed
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

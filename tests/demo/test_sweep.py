"""The layer sweep on the demo model: `vdit sweep`, and the same sweep on Ray workers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from training.painter import render
from training.world import Scenes
from vdit_core.cli import main
from vdit_core.demo import sweep as demo
from vdit_core.demo.goal import measures
from vdit_core.head_mask import HeadMask
from vdit_core.hosts.diffusers import attach
from vdit_core.selection import LayerMask
from vdit_core.sweep.checkpoint import SweepFolder
from vdit_core.sweep.groups import groups
from vdit_core.sweep.run import run, together
from vdit_core.sweep.scores import LIKENESS, measure
from vdit_core.tiny_wan.captions import Caption
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
    """`ray start`, then `vdit sweep --ray HOST:PORT`, as docs/cli.md has it."""
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


def test_a_goal_is_searched_and_a_second_search_samples_nothing(tmp_path, capsys):
    """The probe reads real clips: layer 6 brings the source's pan, and the truck stays a truck."""
    out = tmp_path / "search"
    arguments = ["sweep", "--target", "A truck is driving on the highway", "--steps", "4", "--out", str(out)]
    arguments += ["--group", "8@1", "--group", "6", "--goal", "keep pan, free object", "--most-groups", "1"]
    assert main(arguments) == 0
    names = ["found.headmask", "latents", "plan.json", "search.json", "search.png", "sheet.png"]
    assert sorted(p.name for p in out.iterdir()) == names
    report = json.loads((out / "search.json").read_text())
    assert [trial["added"] for trial in report["trials"]] == ["8@1", "6"]
    assert report["path"][0]["added"] == "6"
    assert report["path"][0]["kept"] > 0.5
    assert report["path"][0]["free"] > 0.9
    assert HeadMask.load(out / "found.headmask") == HeadMask("6@0, 6@1", 9, 2)
    printed, progress = capsys.readouterr()
    assert "vdit: round 1: 2 groups" in progress
    assert "| 1      | + 6 " in printed
    before = {p.name: p.stat().st_mtime_ns for p in (out / "latents").iterdir()}
    assert len(before) == 4
    assert main([*arguments, "--weight", "0.3", "--group", "6@0, 6@1, 8@1"]) == 0
    after = {p.name: p.stat().st_mtime_ns for p in (out / "latents").iterdir()}
    assert len(after) == 5, "only the new group is sampled"
    assert before.items() <= after.items()


def test_heads_have_rows_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "decode", lambda model, latents: quick(latents))
    arguments = ["sweep", "--target", TARGET, "--steps", "2", "--mode", "each head", "--heads", "2@1, 6"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "sweep.json").read_text())
    assert [row["mask"] for row in report["rows"]] == ["2@1", "6@0", "6@1"]
    assert report["settings"]["mode"] == "each head"


def test_a_row_of_all_heads_of_a_layer_is_the_row_of_the_layer(demo_model, latents):
    rows = groups("groups", demo.signature(demo_model), text="4")
    plan = replace(demo.plan(demo_model, SOURCE, TARGET, **SAMPLING), mode="groups", groups=rows)
    found = run(plan, demo.sampler(demo_model, **SAMPLING))
    torch.testing.assert_close(found[2], latents[2 + 4], rtol=1e-3, atol=1e-3)


def test_measures_of_the_probe_tell_pan_from_object(probe):
    """On the world's own pictures: a car and a truck that move alike, and a car that moves otherwise."""
    table = measures(probe)
    assert {"pan", "object", "motion", "palette"} <= set(table.table)
    captions = [Caption("car"), Caption("truck"), Caption("car")]
    clips = render(Scenes.sample([1, 1, 2], captions))
    car, truck, other = (table.look(clip[None]) for clip in clips)
    pan, thing = (table.table[name] for name in ("pan", "object"))
    assert pan.likeness(car, car) == pan.top
    assert thing.likeness(car, car) == pytest.approx(1, abs=1e-5)
    assert pan.likeness(car, truck) > pan.likeness(car, other)
    assert thing.likeness(car, other) > thing.likeness(car, truck)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--group", "9"], "The head group '9' cannot be used: Layer 9 in '9' is out of range"),
        (["--mode", "each head", "--heads", "none"], "the mask 'none' names no head"),
        (["--mode", "each head", "--group", "1"], "--group goes with --mode groups, not with --mode 'each head'"),
        (["--heads", "1"], "--heads goes with --mode 'each head' or 'heads of each layer', not with --mode 'each'"),
        (["--weight", "0.2"], "--weight goes with --goal"),
        (["--goal", "keep pan"], "has nothing to free"),
        (["--goal", "keep pan, free object", "--weight", "2"], "weight of keep is 2.0"),
        (["--goal", "keep pan, free object", "--most-groups", "0"], "most_groups is 0"),
        (["--goal", "keep pan, free wheels"], "no measure 'wheels' here; there are motion"),
        (["--goal", "keep pan, free object", "--mode", "first"], "The rows of the mode 'first' overlap"),
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

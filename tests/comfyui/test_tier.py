"""Recordings on disk in a running ComfyUI: they lie in its folder for temporary files, whole, as long as its cache
holds them, and what breaks off leaves nothing. The stock result stays what it was, bit for bit."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from comfyui import graphs
from comfyui.server import PromptFailed, Server, serve

from vdit_core.recording.store import AttentionStore

CALLS = 9 * 3 * 2


def small(graph: graphs.Graph) -> graphs.Graph:
    """A recording of 5 MiB."""
    graph["empty"]["inputs"] |= {"width": 64, "height": 64, "length": 9}
    return graph


def transfer(seed: int, tier: str = "disk", quantization: str = "none", **changes) -> graphs.Graph:
    return small(graphs.transfer(seed, recording={"tier": tier, "quantization": quantization}, **changes))


def recordings(server: Server) -> dict[Path, list[Path]]:
    """The recordings on disk and the files of each, all of them whole."""
    folder = server.base / "temp" / "vdit_attention"
    found = {each: sorted(each.iterdir()) for each in folder.iterdir()} if folder.is_dir() else {}
    for path in (path for paths in found.values() for path in paths):
        AttentionStore.load(path)
    return found


def forget(server: Server) -> None:
    """Empty the cache: by its own button, and a prompt of something else."""
    server.post("/free", {"unload_models": True, "free_memory": True})
    server.run(graphs.demo() | {"end": graphs.node("SaveLatent", samples=["empty", 0], filename_prefix="none")})


def stock(server: Server, seed: int) -> torch.Tensor:
    return server.run(small(graphs.stock("target", seed))).latents["save"]


@pytest.fixture(scope="module")
def before(server) -> torch.Tensor:
    """The stock result, before there is any recording on disk."""
    forget(server)
    assert recordings(server) == {}
    return stock(server, seed=7)


@pytest.fixture
def undisturbed(server, before) -> Iterator[Server]:
    """The shared server. After a test and `forget`, nothing is left of it, and stock is stock."""
    yield server
    forget(server)
    assert recordings(server) == {}
    assert torch.equal(stock(server, seed=7), before)


#: What is queued after a recording was made and used, what of it runs, and how many recordings are on disk then at
#: least and at most.
AFTER = {
    "the same": (lambda: transfer(41), set(), (1, 1)),
    "another strength": (lambda: transfer(41, strength=0.5), {"transfer", "sample target"}, (1, 1)),
    "another branch": (lambda: transfer(41, branches="cond"), {"transfer", "sample target"}, (1, 1)),
    "another seed": (lambda: transfer(42), {"sample source", "finish", "transfer", "sample target"}, (1, 2)),
    "another quantization": (lambda: transfer(41, quantization="int8"), {"record", "sample source", "finish"}, (1, 2)),
    "another tier": (lambda: transfer(41, tier="RAM"), {"record", "sample source", "finish"}, (0, 1)),
    "without the recording": (lambda: small(graphs.stock(seed=41)), {"sample"}, (0, 1)),
}


@pytest.mark.parametrize("name", AFTER)
def test_files_live_as_long_as_the_cache_holds_the_store(undisturbed, name):
    make, ran, (least, most) = AFTER[name]
    first = undisturbed.run(transfer(41))
    (made,) = recordings(undisturbed).items()
    assert len(made[1]) == 3, "one file for each step"
    then = undisturbed.run(make())
    assert ran <= set(then.ran), then.ran
    assert bool(ran) == bool(then.ran)
    left = recordings(undisturbed)
    assert least <= len(left) <= most, left
    if least == most:
        assert left == dict([made]), "the same files"
    again = undisturbed.run(transfer(41))
    target = again.latents.get("save target", first.latents["save target"])
    assert torch.equal(target, first.latents["save target"])


@pytest.mark.parametrize("tier", ["GPU", "disk"])
def test_int8_is_the_same_in_every_tier(undisturbed, tier):
    wanted = undisturbed.run(transfer(43, tier="RAM", quantization="int8")).latents["save target"]
    assert torch.equal(undisturbed.run(transfer(43, tier=tier, quantization="int8")).latents["save target"], wanted)


@pytest.mark.parametrize("tiers", [("disk", "disk"), ("disk", "RAM"), ("RAM", "disk")], ids="-".join)
def test_prompts_queued_together(undisturbed, tiers):
    alone = []
    for seed in (44, 45):
        alone.append(undisturbed.run(transfer(seed, tier="RAM")).latents["save target"])
    forget(undisturbed)
    prompts = [transfer(seed, tier) for seed, tier in zip((44, 45), tiers, strict=True)]
    for result, target in zip(undisturbed.run_together(prompts), alone, strict=True):
        assert torch.equal(result.latents["save target"], target)
        assert result.reports()["transfer"] == f"replaced {CALLS} of {CALLS} calls"


@pytest.mark.parametrize("at", ["sample source", "sample target"])
def test_an_interrupt_leaves_whole_recordings_only(undisturbed, at):
    graph = small(graphs.transfer(46, steps=10, recording={"tier": "disk"}))
    with pytest.raises(PromptFailed, match="interrupted"):
        undisturbed.run(graph, interrupt_at=at, interrupt_after=2)
    assert len(recordings(undisturbed)) == (at == "sample target")
    whole = undisturbed.run(graph)
    assert ("sample source" in whole.ran) == (at == "sample source")
    assert whole.reports()["transfer"] == f"replaced {CALLS * 10 // 3} of {CALLS * 10 // 3} calls"


def test_a_recording_that_somebody_deleted_is_told_of(undisturbed):
    undisturbed.run(transfer(47))
    for paths in recordings(undisturbed).values():
        for path in paths:
            path.unlink()
    with pytest.raises(PromptFailed, match=r"vdit-recording-\w+/0000\.safetensors"):
        undisturbed.run(transfer(47, strength=0.5))
    assert undisturbed.run(transfer(48)).reports()["transfer"] == f"replaced {CALLS} of {CALLS} calls"


@contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
        refused = mounted.stderr.strip() if mounted.returncode else None
    except OSError as error:
        refused = str(error)
    if refused is not None:
        pytest.skip(f"no small disk can be mounted here: {refused}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def cramped(comfyui, tmp_path_factory) -> Iterator[Server]:
    """A server that caches nothing, with 8 MiB for temporary files and 4 MiB for saved recordings."""
    base = tmp_path_factory.mktemp("cramped") / "base"
    with (
        tmpfs(base / "temp", "8m"),
        tmpfs(base / "output" / "attention", "4m"),
        serve(comfyui, base, "--cache-none") as server,
    ):
        yield server


def test_without_a_cache_nothing_outlives_its_prompt(cramped):
    before = stock(cramped, seed=51)
    wanted = cramped.run(transfer(51, tier="RAM")).latents["save target"]
    assert torch.equal(cramped.run(transfer(51)).latents["save target"], wanted)
    assert recordings(cramped) == {}
    assert torch.equal(stock(cramped, seed=51), before)


def two_recorders(seed: int) -> graphs.Graph:
    """Each fits the disk by itself, and cannot know of the other."""
    graph = transfer(seed)
    graph["other"] = graphs.record(["record", 0], tier="disk")
    graph["sample source"]["inputs"]["model"] = ["other", 0]
    return graph


def saved(seed: int) -> graphs.Graph:
    return transfer(seed, tier="RAM") | {
        "save": graphs.node("VDiT_SaveAttentionStore", store=["finish", 0], filename_prefix="kept")
    }


#: What does not fit, and what is said: before the first step where that can be known.
TOO_LARGE = {
    "more steps than the disk has room for": (
        lambda: small(graphs.transfer(52, steps=9, recording={"tier": "disk"})), "This recording would weigh",
    ),
    "a disk that is full in mid-run": (lambda: two_recorders(53), "No space left on device"),
    "a file that does not fit": (lambda: saved(54), "store could not be written to .*No space left on device"),
}  # fmt: skip


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_full_disk(cramped, name):
    make, message = TOO_LARGE[name]
    before = stock(cramped, seed=55)
    with pytest.raises(PromptFailed, match=message):
        cramped.run(make())
    assert recordings(cramped) == {}
    assert list((cramped.base / "output" / "attention").iterdir()) == [], "no part of a file"
    assert torch.equal(stock(cramped, seed=55), before)
    assert cramped.run(transfer(55)).reports()["transfer"] == f"replaced {CALLS} of {CALLS} calls"

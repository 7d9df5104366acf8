"""ComfyUI's cache and order: a recording always belongs to the latent it is asked for, or there is a clear message."""

from __future__ import annotations

import pytest
import torch
from comfyui import graphs
from comfyui.server import PromptFailed, serve


def fresh(server) -> None:
    """Empty the server's cache."""
    server.post("/free", {"unload_models": True, "free_memory": True})
    server.run(graphs.demo() | {"end": graphs.node("SaveLatent", samples=["empty", 0], filename_prefix="none")})


def test_a_changed_transfer_does_not_sample_the_source_again(server):
    server.run(graphs.transfer(seed=21))
    changed = server.run(graphs.transfer(seed=21, strength=0.5))
    assert "sample source" not in changed.ran
    assert "sample target" in changed.ran


def test_the_same_prompt_again_runs_nothing(server):
    server.run(graphs.transfer(seed=22))
    assert server.run(graphs.transfer(seed=22)).ran == []


def test_another_seed_is_recorded_anew(server):
    """Recorder and transfer come from the cache; their second run must give what a first run gives."""
    server.run(graphs.transfer(seed=23))
    second = server.run(graphs.transfer(seed=24))
    assert "record" not in second.ran
    fresh(server)
    assert torch.equal(second.latents["save target"], server.run(graphs.transfer(seed=24)).latents["save target"])


def test_two_samplers_on_one_recorder(server):
    graph = graphs.transfer(seed=25)
    graph["sample other"] = graphs.sampler(["record", 0], "source", seed=26)
    graph["finish other"] = graphs.node("VDiT_FinishRecording", recorder=["record", 1], latent=["sample other", 0])
    graph["transfer other"] = graphs.node(
        "VDiT_TransferAttention", model=["demo", 0], store=["finish other", 0], gap=0.001, **graphs.where()
    )
    graph["sample other target"] = graphs.sampler(["transfer other", 0], "target", seed=26)
    graph["save other"] = graphs.node("SaveLatent", samples=["sample other target", 0], filename_prefix="other")
    both = server.run(graph)
    assert torch.equal(both.latents["save target"], server.run(graphs.transfer(seed=25)).latents["save target"])
    assert torch.equal(both.latents["save other"], server.run(graphs.transfer(seed=26)).latents["save target"])


def test_a_finish_that_is_added_later_finds_the_recording(server):
    graph = graphs.transfer(seed=27)
    first = {name: graph[name] for name in ("demo", "source", "nothing", "empty", "record", "sample source")}
    server.run(first | {"save": graphs.node("SaveLatent", samples=["sample source", 0], filename_prefix="first")})
    second = server.run(graph)
    assert "sample source" not in second.ran
    assert second.reports()["transfer"] == "replaced 54 of 54 calls"


def test_after_a_lost_recording_the_next_run_samples_anew(server):
    """A latent that no recorder knows, as after an eviction: the message says to queue again, and that works."""
    graph = graphs.transfer(seed=28)
    server.run(graph)
    wrong = graphs.transfer(seed=28)
    wrong["finish"]["inputs"]["latent"] = ["empty", 0]
    with pytest.raises(PromptFailed, match="queue again: the next run samples anew"):
        server.run(wrong)
    again = server.run(graph)
    assert {"record", "sample source"} <= set(again.ran)
    assert again.reports()["transfer"] == "replaced 54 of 54 calls"


@pytest.mark.parametrize("at", ["sample source", "sample target"])
def test_an_interrupted_run_leaves_everything_as_it_was(server, at):
    before = server.run(graphs.stock("target", seed=29)).latents["save"]
    with pytest.raises(PromptFailed, match="interrupted"):
        server.run(graphs.transfer(seed=29, steps=30), interrupt_at=at)
    fresh(server)
    assert torch.equal(server.run(graphs.stock("target", seed=29)).latents["save"], before)
    assert server.run(graphs.transfer(seed=29)).reports()["transfer"] == "replaced 54 of 54 calls"


def test_a_recording_is_saved_and_loaded(server):
    graph = graphs.transfer(seed=30)
    graph["save"] = graphs.node("VDiT_SaveAttentionStore", store=["finish", 0], filename_prefix="kept")
    graph["load"] = graphs.node("VDiT_LoadAttentionStore", file=["save", 1])
    graph["transfer"]["inputs"]["store"] = ["load", 0]
    saved = server.run(graph)
    file = "attention/kept_00001_.safetensors [output]"
    assert saved.reports()["save"].startswith("saved kept_00001_.safetensors")
    assert torch.equal(saved.latents["save target"], server.run(graphs.transfer(seed=30)).latents["save target"])
    assert (
        file
        in server.get("/object_info/VDiT_LoadAttentionStore")["VDiT_LoadAttentionStore"]["input"]["required"]["file"][
            1
        ]["options"]
    )
    del graph["save"]
    graph["load"]["inputs"]["file"] = file
    assert torch.equal(server.run(graph).latents["save target"], saved.latents["save target"])


@pytest.mark.parametrize(
    "file",
    [
        "attention/../../secret.safetensors [output]",
        "/etc/passwd [output]",
        "attention/none.safetensors [input]",
        "car.safetensors",
        "attention/car.txt [output]",
        "",
    ],
)
def test_other_files_are_not_read(server, file):
    graph = {
        "load": graphs.node("VDiT_LoadAttentionStore", file=file),
        "save": graphs.node("VDiT_SaveAttentionStore", store=["load", 0], filename_prefix="x"),
    }
    with pytest.raises(PromptFailed, match="recording"):
        server.run(graph)


@pytest.mark.parametrize("prefix", ["../../x", "/tmp/x"])
def test_nothing_is_written_elsewhere(server, prefix):
    graph = graphs.transfer(seed=31)
    graph["save"] = graphs.node("VDiT_SaveAttentionStore", store=["finish", 0], filename_prefix=prefix)
    with pytest.raises(PromptFailed, match="VDiT_SaveAttentionStore"):
        server.run(graph)
    assert not list(server.base.parent.glob("x_*"))


@pytest.mark.parametrize("name", ["", " ", ".", "cars/.."])
def test_a_file_needs_a_name(server, name):
    graph = graphs.transfer(seed=31)
    graph["save"] = graphs.node("VDiT_SaveAttentionStore", store=["finish", 0], filename_prefix=name)
    with pytest.raises(PromptFailed, match="names no file; write for example recording"):
        server.run(graph)


def test_prompts_queued_together(server):
    """One recorder in both: each target gets the maps of its own source."""
    seeds = (34, 35)
    together = server.run_together([graphs.transfer(seed=seed) for seed in seeds])
    for seed, result in zip(seeds, together, strict=True):
        assert result.reports()["transfer"] == "replaced 54 of 54 calls"
        fresh(server)
        alone = server.run(graphs.transfer(seed=seed))
        assert torch.equal(result.latents["save target"], alone.latents["save target"])


def test_an_error_in_mid_run_leaves_everything_as_it_was(server):
    """A recording that grows beyond its budget, since context windows compute each step twice."""
    graph = graphs.transfer(seed=36, steps=8, recording={"memory_gb": 0.1})
    graph["windows"] = graphs.node(
        "ContextWindowsManual", model=["record", 0], context_length=3, context_overlap=1, context_stride=1,
        context_schedule="standard_static", closed_loop=False, fuse_method="pyramid", dim=2, freenoise=False,
        cond_retain_index_list="", split_conds_to_windows=False, latent_retain_index_list="", causal_window_fix=False,
    )  # fmt: skip
    graph["sample source"]["inputs"]["model"] = ["windows", 0]
    before = server.run(graphs.stock("source", seed=36)).latents["save"]
    with pytest.raises(
        PromptFailed, match=r"KSampler: This recording has reached the 0\.1 GiB that it may take, 2\d\d calls"
    ):
        server.run(graph)
    fresh(server)
    assert torch.equal(server.run(graphs.stock("source", seed=36)).latents["save"], before)
    assert server.run(graphs.transfer(seed=36)).reports()["transfer"] == "replaced 54 of 54 calls"


def run_or_run_again(server, graph):
    """A recording may be lost with what was evicted; then the next run has it."""
    try:
        return server.run(graph)
    except PromptFailed as error:
        if "queue again: the next run samples anew" not in str(error):
            raise
        return server.run(graph)


@pytest.mark.parametrize("options", ["--cache-none", "--cache-classic", "--cache-lru 2", "--fp16-intermediates"])
def test_other_ways_to_run_the_server(comfyui, tmp_path, options):
    """Whatever is kept or evicted in between, a seed and a strength give the same target again."""
    targets = {}
    with serve(comfyui, tmp_path / "base", *options.split()) as server:
        for seed, strength in ((32, 1.0), (33, 1.0), (32, 0.5), (32, 1.0), (33, 0.5), (33, 1.0)):
            result = run_or_run_again(server, graphs.transfer(seed=seed, strength=strength))
            target = result.latents.get("save target", targets.get((seed, strength)))  # none if nothing had to run
            assert torch.equal(targets.setdefault((seed, strength), target), target)
            assert set(result.reports().values()) <= {"replaced 54 of 54 calls", "recorded 54 calls, 33.8 MiB"}
    assert not torch.equal(targets[32, 1.0], targets[32, 0.5])

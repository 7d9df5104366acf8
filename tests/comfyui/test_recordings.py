"""A recording reaches the node that made it, and what goes wrong on the way is told."""

from __future__ import annotations

import pytest
import torch
from comfyui import graphs
from comfyui.outcomes import level, text, without
from comfyui.server import PromptFailed

LONG = [[0.0] * 128] * 320  # as many words as the demo model's grid has tokens


def two_experts(seed: int, one_recorder: bool = False) -> graphs.Graph:
    """Each expert recorded by a node of its own, of equal settings, and its recording put into that expert again."""
    graph = graphs.demo()
    sampling = {
        "seed": seed,
        "steps": 4,
        "cfg": graphs.GUIDANCE,
        "negative": ["nothing", 0],
        "latent_image": ["empty", 0],
    }
    for which in ("high", "low"):
        graph[f"record {which}"] = graphs.record(["demo", 0])
        recorder = "record high" if one_recorder else f"record {which}"
        graph[f"finish {which}"] = graphs.node(
            "VDiT_FinishRecording", recorder=[recorder, 1], latent=["sample source", 0]
        )
        graph[f"transfer {which}"] = graphs.node(
            "VDiT_TransferAttention", model=["demo", 0], store=[f"finish {which}", 0], gap=0.001, **graphs.where()
        )
    for name, prompt, models in (("source", "source", "record"), ("target", "target", "transfer")):
        graph[f"sample {name}"] = graphs.node(
            "StandIn_TwoExpertSampler", model_high=[f"{models} high", 0], model_low=[f"{models} low", 0],
            positive=[prompt, 0], **sampling,
        )  # fmt: skip
    graph["save target"] = graphs.node("SaveLatent", samples=["sample target", 0], filename_prefix="target")
    return graph


def test_two_experts_recorded_by_nodes_of_equal_settings(server):
    result = server.run(two_experts(792))
    assert text(result, "finish high") == "recorded 36 calls, 22.5 MiB, run 1 of 1: noise 1.00 to 0.90"
    assert text(result, "finish low") == "recorded 36 calls, 22.5 MiB"
    for which in ("high", "low"):
        assert result.outcomes[f"transfer {which}"]["text"] == "replaced 36 of 36 calls", result.outcomes


def test_one_recorder_under_both_experts(server):
    """By latent the second run; the first one's latent is hidden, so it is the one that nobody has claimed."""
    graph = two_experts(793)
    graph["sample source"]["inputs"]["model_low"] = ["record high", 0]
    graph = without(graph, "finish low", "transfer low", "record low")
    graph["sample target"]["inputs"]["model_low"] = ["demo", 0]
    graph["sample target"]["inputs"]["model_high"] = ["demo", 0]
    graph["show"] = graphs.node("PreviewAny", source=["finish high", 0])
    result = server.run(without(graph, "transfer high"))
    assert text(result, "finish high") == "recorded 36 calls, 22.5 MiB, run 2 of 2: noise 0.75 to 0.50"
    assert text(result, "record high").startswith("run 1: recorded 36 calls")


def test_two_samplers_in_a_row_on_one_recorder_are_told_apart(server):
    graph = graphs.transfer(seed=794)
    half = {"noise_seed": 794, "steps": 4, "cfg": graphs.GUIDANCE, "sampler_name": "euler", "scheduler": "simple",
            "negative": ["nothing", 0]}  # fmt: skip
    first = {"add_noise": "enable", "start_at_step": 0, "end_at_step": 2, "return_with_leftover_noise": "enable"}
    second = {
        "add_noise": "disable",
        "start_at_step": 2,
        "end_at_step": 10_000,
        "return_with_leftover_noise": "disable",
    }
    for which, model in (("source", "record"), ("target", "transfer")):
        common = half | {"model": [model, 0], "positive": [which, 0]}
        graph[f"first {which}"] = graphs.node("KSamplerAdvanced", latent_image=["empty", 0], **common | first)
        graph[f"sample {which}"] = graphs.node(
            "KSamplerAdvanced", latent_image=[f"first {which}", 0], **common | second
        )
    result = server.run_to_the_end(graph)
    assert text(result, "finish") == "recorded 36 calls, 22.5 MiB, run 2 of 2: noise 0.75 to 0.50"
    assert "noise from 0.75. Target: noise from 1.00." in result.error["exception_message"]
    assert "give each its own Record Attention" in result.error["exception_message"]
    assert level(result, "transfer") == "failed"


def test_a_finish_that_is_put_back_has_its_recording_again(server):
    graph = graphs.demo() | graphs.recorded("one", "source", 795)
    graph["sample two"] = graphs.sampler(["record one", 0], "source", 796)
    graph["two"] = graphs.node("VDiT_FinishRecording", recorder=["record one", 1], latent=["sample two", 0])
    for name in ("one", "two"):
        graph[f"save {name}"] = graphs.node("SaveLatent", samples=[name, 1], filename_prefix=name)
    first = server.run(graph)
    removed = without(graph, "one")
    removed["save one"] = graphs.node("SaveLatent", samples=["sample one", 0], filename_prefix="one")
    assert "sample two" not in server.run(removed).ran, "taking a node away makes nobody sample"
    back = server.run(graph)
    assert level(back, "one") == level(back, "two") == "done"
    assert torch.equal(back.latents["save one"], first.latents["save one"])


def test_a_latent_that_does_not_come_from_the_recorded_sampler_gets_nothing(server):
    graph = graphs.transfer(seed=797)
    graph["other"] = graphs.sampler(["demo", 0], "source", 798)
    graph["finish"]["inputs"]["latent"] = ["other", 0]
    graph["save other"] = graphs.node("SaveLatent", samples=["sample source", 0], filename_prefix="x")
    with pytest.raises(PromptFailed, match="There is no recording of this latent"):
        server.run(graph)


def test_noise_that_a_sampler_draws_itself_is_the_cause(server):
    graph = graphs.live(seed=799)
    sampler = graph["sample"]["inputs"]
    kept = {name: sampler[name] for name in ("model", "positive", "negative", "latent_image", "seed", "steps", "cfg")}
    graph["sample"] = graphs.node("StandIn_OwnNoiseSampler", **kept)
    with pytest.raises(PromptFailed) as error:
        server.run(graph)
    assert "StandIn_OwnNoiseSampler (stand_ins) draws other noise for each video of a batch" in str(error.value)
    assert "connect Live Transfer's own latent" not in str(error.value).lower(), "that is what was done"


def test_context_windows_that_fail_on_a_live_batch_are_the_cause(server):
    """ComfyUI's own error, on any batch of several videos, is of an index."""
    graph = graphs.live(seed=798)
    graph["empty"]["inputs"]["length"] = 33
    graph["windows"] = graphs.node(
        "WanContextWindowsManual", model=["live", 0], context_length=17, context_overlap=4, context_stride=1,
        context_schedule="standard_uniform", closed_loop=False, fuse_method="pyramid", freenoise=False,
        retain_first_frame=False, split_conds_to_windows=False,
    )  # fmt: skip
    graph["sample"]["inputs"]["model"] = ["windows", 0]
    result = server.run_to_the_end(graph)
    assert result.error["exception_type"] == "vdit_attention.HostError"
    assert "ComfyUI's context windows failed on a batch of 2 videos" in result.error["exception_message"]
    assert level(result, "live") == "failed"


def test_the_log_has_a_line(server):
    server.run(graphs.edited("transfer", seed=800))
    lines = server.log.read_text().splitlines()
    assert any("VDiT Attention: Transfer Attention (node transfer): replaced 36 of 36 calls" in line for line in lines)

"""Every run has an outcome, and it is the true one: in the history of whoever queued the prompt, and in the log."""

from __future__ import annotations

import pytest
import torch
from comfyui import graphs
from comfyui.outcomes import level, text, without
from comfyui.server import PromptFailed

LONG = [[0.0] * 128] * 320  # as many words as the demo model's grid has tokens


@pytest.mark.parametrize("tenant", graphs.TENANTS)
@pytest.mark.parametrize("editor", graphs.EDITORS)
def test_an_editor_whose_model_is_another_packs_is_red_and_never_stale(server, editor, tenant):
    """First run, cached, requeued with and without the other node: the last thing said is what happened."""
    between, comes_by = graphs.TENANTS[tenant]
    seed = 700 + 10 * graphs.EDITORS.index(editor) + list(graphs.TENANTS).index(tenant)
    plain, bypassed = graphs.edited(editor, seed=seed), graphs.edited(editor, between, seed=seed)
    expected = "done" if comes_by else "failed"

    first = server.run(bypassed)
    assert level(first, editor) == expected, first.outcomes
    if not comes_by:
        assert "stand_ins replaced" in text(first, editor)
        assert "could not be reached" in text(first, editor)
    again = server.run(bypassed)
    assert again.ran == []
    assert level(again, editor) in (expected, None)
    alone = server.run(plain)
    assert editor not in alone.ran, "it is cached"
    assert level(alone, editor) == "done", alone.outcomes
    requeued = server.run(bypassed)
    assert level(requeued, editor) == expected
    assert server.outcomes(alone.prompt)[editor]["level"] == "done", "what the history says of an earlier prompt stays"
    assert server.outcomes(first.prompt)[editor]["level"] == expected


@pytest.mark.parametrize("editor", graphs.EDITORS)
def test_an_editor_that_nobody_samples_says_nothing(server, editor):
    """It was green; now the sampler takes another model, and the node hangs on the prompt by another way."""
    graph = graphs.edited(editor, seed=760)
    assert level(server.run(graph), editor) == "done"
    graph["sample"] = graphs.sampler(["demo", 0], "target", 760, 2)
    graph["other"] = graphs.node("ModelSamplingSD3", model=[editor, 0], shift=3.0)
    graph["save other"] = graphs.node("PreviewAny", source=["other", 0])
    assert level(server.run(graph), editor) is None


def test_a_run_that_was_edited_elsewhere_is_stock_in_the_end(server):
    """A bypassed self-attention computes what the stock model does: nothing of ours was half done."""
    between, _ = graphs.TENANTS["self"]
    bypassed = server.run(graphs.edited("transfer", between, seed=770))
    plain = graphs.edited("transfer", seed=770)
    plain["sample"] = graphs.sampler(["demo", 0], "target", 770, 2)
    torch.testing.assert_close(
        bypassed.latents["save"], server.run(without(plain, "transfer")).latents["save"], rtol=0, atol=2e-3
    )


#: Nodes that measure, each on a model of another pack: the node that the error is of.
MEASURING = {
    "record": "KSampler",
    "statistics": "KSampler",
    "sweep": "VDiT_LayerSweep",
    "profile": "VDiT_SparsityProfile",
    "report": "VDiT_SparseReport",
}


def measuring(what: str, model: list, seed: int, steps: int = 4) -> graphs.Graph:
    if what in ("record", "statistics"):
        kept = "queries and keys" if what == "record" else "statistics"
        graph = graphs.demo() | graphs.recorded("store", "source", seed, steps, what=kept)
        graph["record store"]["inputs"]["model"] = model
        graph["save"] = graphs.node("SaveLatent", samples=["store", 1], filename_prefix="x")
    elif what == "sweep":
        graph = graphs.sweep(steps=steps, seed=seed, model=model)
    elif what == "profile":
        graph = graphs.demo() | {"profile": graphs.sparsity_profile(steps=steps)}
        graph["profile"]["inputs"] |= {"model": model, "seed": seed}
        graph["say"] = graphs.node("PreviewAny", source=["profile", 2])
    else:
        settings = graphs.sparse(model)["inputs"]
        settings = {name: value for name, value in settings.items() if name not in ("keep", "temperature")}
        itself = graphs.itself(seed=seed, steps=steps) | {"model": model}
        graph = graphs.demo() | {"report": graphs.node("VDiT_SparseReport", keeps="30", **settings | itself)}
        graph["say"] = graphs.node("PreviewAny", source=["report", 2])
    graph["empty"]["inputs"] |= {"width": 64, "height": 64, "length": 5}
    return graph


@pytest.mark.parametrize("tenant", [name for name, (_, comes_by) in graphs.TENANTS.items() if not comes_by])
@pytest.mark.parametrize("what", MEASURING)
def test_what_measures_stops_after_the_first_model_call(server, what, tenant):
    between, _ = graphs.TENANTS[tenant]
    graph = measuring(what, ["between", 0], seed=780)
    graph["between"] = between | {"inputs": between["inputs"] | {"model": ["demo", 0]}}
    steps = []
    with pytest.raises(PromptFailed) as error:
        server.run(graph, on_progress=steps.append)
    # Sparse Report samples the dense video first, and is stopped in the second one.
    assert str(error.value).startswith(MEASURING[what])
    assert "self-attention could not be reached: stand_ins replaced" in str(error.value)
    assert len([each for each in steps if each["max"] == 4]) <= (4 if what == "report" else 0), "no step was paid for"
    if tenant == "temporary forward":
        assert "EasyCache" in str(error.value), "what to use instead"


def test_a_recorder_is_red_with_the_sentence_since_the_toast_names_the_sampler_only(server):
    graph = measuring("record", ["between", 0], seed=781)
    graph["between"] = graphs.node("StandIn_AttentionBypass", model=["demo", 0], what="both")
    result = server.run_to_the_end(graph)
    assert result.error["exception_type"] == "vdit_attention.NotReached"
    assert level(result, "record store") == "failed"
    assert text(result, "record store") == result.error["exception_message"].strip()


def test_an_error_of_a_transfer_is_at_its_node_and_has_a_short_name(server):
    graph = graphs.transfer(seed=782)
    graph["sample target"]["inputs"]["steps"] = 4
    result = server.run_to_the_end(graph)
    assert result.error["node_type"] == "KSampler"
    assert result.error["exception_type"] == "vdit_attention.TransferError"
    assert level(result, "transfer") == "failed"
    assert "Source: 3 steps, shift 3, cfg 5, 128×128×17. Target: 4 steps." in text(result, "transfer")
    assert level(result, "finish") == "done"


def test_self_attention_is_told_from_cross_attention_by_what_it_is(server):
    """A text as long as the grid, and only one of the two replaced."""
    for what, expected in (("self", "failed"), ("cross", "done")):
        graph = graphs.edited("sparse", graphs.node("StandIn_AttentionBypass", what=what), seed=783)
        graph["empty"]["inputs"] |= {"width": 64, "height": 64, "length": 1}  # 1 x 4 x 4 = 16 tokens, as the text has
        result = server.run(graph)
        assert level(result, "sparse") == expected, (what, result.outcomes)


# Same start


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"seed": 8}, "started from other noise than the source (source: seed 7, target: seed 8)"),
        ({"sampler_name": "dpmpp_2m"}, "another sampler (source: euler, target: dpmpp_2m)"),
    ],
)
def test_another_start_is_amber_with_the_cause(server, change, cause):
    graph = graphs.transfer(seed=7)
    graph["sample target"]["inputs"] |= change
    result = server.run(graph)
    assert level(result, "transfer") == "partly"
    assert text(result, "transfer").startswith("replaced 54 of 54 calls; ")
    assert cause in text(result, "transfer")


def test_a_batch_of_targets_from_one_source(server):
    """ComfyUI draws other noise for each video of a batch: only the first starts as the source did."""
    graph = graphs.transfer(seed=7)
    graph["three"] = graphs.node("EmptyHunyuanLatentVideo", width=128, height=128, length=17, batch_size=3)
    graph["sample target"]["inputs"]["latent_image"] = ["three", 0]
    result = server.run(graph)
    assert level(result, "transfer") == "partly"
    assert "videos 1, 2 of the batch started from other noise" in text(result, "transfer")


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"positive": ["target", 0]}, "the sampler's positive is not Live Transfer's own"),
        ({"latent_image": ["two", 0]}, "the sampler's latent is not Live Transfer's own"),
        ({"positive": ["target", 0], "latent_image": ["two", 0]}, "positive and latent are not Live Transfer's own"),
    ],
)
def test_a_live_transfer_that_did_not_get_its_own_inputs_is_amber(server, change, cause):
    """The other latent has the same noise for both videos, but is of another size."""
    graph = graphs.live(seed=7)
    graph["other"] = graphs.node("EmptyHunyuanLatentVideo", width=128, height=128, length=13, batch_size=1)
    graph["two"] = graphs.live()["live"] | {"inputs": graphs.live()["live"]["inputs"] | {"latent": ["other", 0]}}
    graph["two"]["inputs"]["strength"] = 0.5
    graph["sample"]["inputs"] |= {
        name: [node, 2] if node == "two" else [node, slot] for name, (node, slot) in change.items()
    }
    result = server.run(graph)
    assert level(result, "live") == "partly", result.outcomes
    assert cause in text(result, "live")


@pytest.mark.parametrize("off", [{"strength": 0.0}, {"steps": "none"}, {"heads": "none"}, {"mask": ["nothing", 0]}])
@pytest.mark.parametrize("kind", ["transfer", "live"])
def test_an_empty_selection_is_grey_with_the_cause(server, kind, off):
    graph = graphs.edited(kind, seed=784)
    graph["nothing mask"] = graphs.node("VDiT_LayerMask", mask="none", layers=0)
    graph[kind]["inputs"] |= {name: ["nothing mask", 0] if name == "mask" else value for name, value in off.items()}
    result = server.run(graph)
    assert level(result, kind) == "idle"
    assert text(result, kind).startswith("nothing to replace: no ")


# The calls that come


def scheduled(seed: int, cfg: tuple[float, float], above: tuple[float, float], steps: int = 4) -> graphs.Graph:
    """Source and target, each guided above a noise level only."""
    graph = graphs.transfer(seed=seed)
    graph |= {
        "noise": graphs.node("RandomNoise", noise_seed=seed),
        "euler": graphs.node("KSamplerSelect", sampler_name="euler"),
        "sigmas": graphs.node("BasicScheduler", model=["demo", 0], scheduler="simple", steps=steps, denoise=1.0),
    }
    for n, (which, model) in enumerate((("source", "record"), ("target", "transfer"))):
        graph[f"guider {which}"] = graphs.node(
            "StandIn_ScheduledGuidance", model=[model, 0], positive=[which, 0], negative=["nothing", 0], cfg=cfg[n],
            above=above[n],
        )  # fmt: skip
        graph[f"sample {which}"] = graphs.node(
            "SamplerCustomAdvanced", noise=["noise", 0], guider=[f"guider {which}", 0], sampler=["euler", 0],
            sigmas=["sigmas", 0], latent_image=["empty", 0],
        )  # fmt: skip
    return graph


def test_guidance_that_ends_in_both_runs_misses_nothing(server):
    result = server.run(scheduled(785, (5.0, 5.0), (0.8, 0.8)))
    assert level(result, "record") == level(result, "finish") == level(result, "transfer") == "done", result.outcomes
    assert text(result, "transfer") == "replaced 54 of 54 calls", "two steps of two prompts, two of one, nine layers"


def test_guidance_that_lasts_longer_than_the_sources_runs_stock_there(server):
    result = server.run(scheduled(786, (5.0, 5.0), (0.8, 0.0)))
    assert level(result, "transfer") == "partly"
    assert text(result, "transfer") == (
        "replaced 54 of 72 calls; the source's run did not compute the negative prompt in steps 2-3"
    )


def test_a_source_without_guidance_serves_a_target_with_it(server):
    graph = graphs.transfer(seed=787)
    graph["sample source"]["inputs"]["cfg"] = 1.0
    result = server.run(graph)
    assert level(result, "transfer") == "partly"
    assert text(result, "transfer") == (
        "replaced 27 of 54 calls; the negative prompt was not recorded (source: cfg 1, target: cfg 5)"
    )


def test_layers_and_steps_that_were_not_recorded_run_stock_and_are_told(server):
    graph = graphs.transfer(seed=788, recording={"layers": "0-3", "steps": "0-1"})
    result = server.run(graph)
    assert level(result, "transfer") == "partly"
    assert text(result, "transfer") == "replaced 16 of 54 calls; layers 4-8 were not recorded; step 2 was not recorded"
    chosen = graphs.transfer(seed=788, recording={"layers": "0-3", "steps": "0-1"}, steps=3)
    chosen["mask"] = graphs.node("VDiT_LayerMask", mask="0-3", layers=9)
    chosen["transfer"]["inputs"] |= {"mask": ["mask", 0], "steps": "0-1"}
    same = server.run(chosen)
    assert level(same, "transfer") == "done"
    assert torch.equal(same.latents["save target"], result.latents["save target"])


def test_steps_that_are_skipped_are_told(server):
    graph = graphs.transfer(seed=789, steps=8)
    graph["cache"] = graphs.node(
        "EasyCache", model=["transfer", 0], reuse_threshold=0.5, start_percent=0.0, end_percent=1.0, verbose=False
    )
    graph["sample target"]["inputs"]["model"] = ["cache", 0]
    result = server.run(graph)
    assert level(result, "transfer") == "partly"
    assert "something leaves steps out, as EasyCache does" in text(result, "transfer")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sample target": {"scheduler": "karras"}}, "scheduler simple. Target: scheduler karras."),
        ({"sample target": {"denoise": 0.6}}, "denoise 1, noise from 1.00. Target: denoise 0.6, noise from 0."),
        ({"sample target": {"model": ["shift", 0]}}, "Source: 3 steps, shift 3, cfg 5, 128×128×17. Target: shift 8."),
        ({"sample target": {"latent_image": ["wide", 0]}}, "128×128×17. Target: 160×128×17. Use the source's width"),
        ({"sample target": {"latent_image": ["long", 0]}}, "128×128×17. Target: 128×128×21. Use the source's width"),
        ({"record": {"what": "statistics"}}, "set `what` to 'queries and keys' or 'both'"),
        ({"record": {"layers": "0-1"}, "mask": {"mask": "5-7"}}, "was recorded: layers 5-7 were not recorded"),
        ({"record": {"steps": "0-1"}, "transfer": {"steps": "2"}}, "step 2 was not recorded"),
    ],
)  # fmt: skip
def test_a_users_mistake_is_named_in_the_users_words(server, change, said):
    graph = graphs.transfer(seed=790)
    graph |= {
        "shift": graphs.node("ModelSamplingSD3", model=["transfer", 0], shift=8.0),
        "wide": graphs.node("EmptyHunyuanLatentVideo", width=160, height=128, length=17, batch_size=1),
        "long": graphs.node("EmptyHunyuanLatentVideo", width=128, height=128, length=21, batch_size=1),
        "mask": graphs.node("VDiT_LayerMask", mask="all", layers=0),
    }
    graph["transfer"]["inputs"]["mask"] = ["mask", 0]
    for name, inputs in change.items():
        graph[name]["inputs"] |= inputs
    with pytest.raises(PromptFailed) as error:
        server.run(graph)
    assert said in str(error.value)


def test_a_negative_without_the_positives_subject_pictures_is_the_cause(server):
    graph = graphs.transfer(seed=791)
    graph["picture"] = graphs.node("EmptyImage", width=128, height=128, batch_size=1, color=8355711)
    graph["phantom"] = graphs.node(
        "WanPhantomSubjectToVideo", positive=["source", 0], negative=["nothing", 0], vae=["demo", 2], width=128,
        height=128, length=17, batch_size=1, images=["picture", 0],
    )  # fmt: skip
    graph["sample source"]["inputs"] |= {"positive": ["phantom", 0], "latent_image": ["phantom", 3]}
    with pytest.raises(PromptFailed, match=r"subject pictures .* Connect the negative outputs of the node that added"):
        server.run(graph)
    graph["sample source"]["inputs"]["negative"] = ["phantom", 1]
    graph = without(graph, "transfer", "sample target", "save target")
    assert level(server.run(graph), "record") == "done", "its advice, taken"

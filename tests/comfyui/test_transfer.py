"""Record, transfer and live transfer in a running ComfyUI: right, off when they are off, and clear when they can't."""

from __future__ import annotations

import pytest
import torch
from comfyui import graphs
from comfyui.server import PromptFailed

from vdit_core.hosts.diffusers import attach
from vdit_core.recording.recorder import Recorder
from vdit_core.transfer import Transfer

CALLS = 9 * 3 * 2


@pytest.fixture(scope="module")
def stock(server):
    """The stock latents of both prompts, before the pack has done anything."""
    return {prompt: server.run(graphs.stock(prompt)).latents["save"] for prompt in ("source", "target")}


@pytest.fixture(scope="module")
def transferred(server, stock):
    return server.run(graphs.transfer())


def test_the_source_is_untouched_and_every_call_of_the_target_is_replaced(transferred, stock):
    assert torch.equal(transferred.latents["save source"], stock["source"])
    assert not torch.allclose(transferred.latents["save target"], stock["target"], atol=0.05)
    assert transferred.reports()["transfer"] == f"replaced {CALLS} of {CALLS} calls"
    assert transferred.reports()["finish"].startswith(f"recorded {CALLS} calls, 33.8 MiB")


def test_it_agrees_with_diffusers(transferred, demo_model):
    """The same experiment through the other host: same noise, same levels, same maps, up to rounding."""
    recorder = Recorder()
    with attach(demo_model.pipe, recorder):
        demo_model.sample([graphs.SOURCE], [7], steps=3)
    with attach(demo_model.pipe, Transfer(recorder.store)):
        ours = demo_model.sample([graphs.TARGET], [7], steps=3)
    vae = demo_model.pipe.vae
    mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
    torch.testing.assert_close(transferred.latents["save target"], ours * std + mean, rtol=0, atol=5e-3)


def test_live_equals_stored(server, transferred, stock):
    result = server.run(graphs.live(2))
    source, *targets = result.latents["save"].split(1)
    torch.testing.assert_close(source, stock["source"], rtol=0, atol=2e-3)
    for target in targets:
        torch.testing.assert_close(target, transferred.latents["save target"], rtol=0, atol=2e-3)
    assert result.reports()["live"] == f"replaced {CALLS} of {CALLS} calls"


def test_live_transfer_in_two_experts(server):
    """As with Wan2.2 14B: the second sampler goes on from the first one's latent, with a Live Transfer of its own."""
    graph = graphs.live(seed=31, steps=4)
    whole = server.run(graph).latents["save"]
    graph["live low"] = {**graph["live"], "inputs": graph["live"]["inputs"] | {"steps": "0%-100%"}}  # or it is one node
    common = {"noise_seed": 31, "steps": 4, "cfg": graphs.GUIDANCE, "sampler_name": "euler", "scheduler": "simple",
              "negative": ["nothing", 0]}  # fmt: skip
    graph["high"] = graphs.node(
        "KSamplerAdvanced", model=["live", 0], positive=["live", 1], latent_image=["live", 2], add_noise="enable",
        start_at_step=0, end_at_step=2, return_with_leftover_noise="enable", **common,
    )  # fmt: skip
    graph["sample"] = graphs.node(
        "KSamplerAdvanced", model=["live low", 0], positive=["live low", 1], latent_image=["high", 0],
        add_noise="disable", start_at_step=2, end_at_step=10_000, return_with_leftover_noise="disable", **common,
    )  # fmt: skip
    result = server.run(graph)
    assert {name: said["level"] for name, said in result.outcomes.items()} == {"live": "done", "live low": "done"}
    assert result.reports() == dict.fromkeys(("live", "live low"), "replaced 36 of 36 calls")
    torch.testing.assert_close(result.latents["save"], whole, rtol=0, atol=1e-3)


@pytest.mark.parametrize("off", [{"strength": 0.0}, {"steps": "none"}, {"heads": "none"}])
def test_a_transfer_of_nothing_is_stock_bit_for_bit(server, stock, off):
    graph = graphs.transfer()
    graph["transfer"]["inputs"] |= off
    result = server.run(graph)
    assert torch.equal(result.latents["save target"], stock["target"])
    assert result.reports()["transfer"].startswith("nothing to replace: no ")


def test_recording_nothing_is_stock_bit_for_bit(server, stock):
    graph = graphs.transfer(recording={"layers": "none"}, strength=0.0)
    assert torch.equal(server.run(graph).latents["save source"], stock["source"])


def test_without_the_node_everything_is_as_before(server, stock, transferred):
    for prompt, latent in stock.items():
        graph = graphs.stock(prompt)
        graph["empty"]["inputs"]["length"] = 13  # other work in between, so that nothing comes from the cache
        server.run(graph)
        assert torch.equal(server.run(graphs.stock(prompt)).latents["save"], latent)


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [("heun", "simple"), ("dpmpp_2m", "karras"), ("uni_pc", "simple"), ("res_multistep", "beta"), ("ddim", "normal")],
)
def test_a_run_transferred_into_itself_stays_itself(server, name, scheduler):
    """Whatever sampler and scheduler: the recorded levels are found again, second evaluations included."""
    settings = {"sampler_name": name, "scheduler": scheduler}
    graph = graphs.transfer()
    graph["sample source"]["inputs"] |= settings
    graph["sample target"]["inputs"] |= settings | {"positive": ["source", 0]}
    result = server.run(graph)
    torch.testing.assert_close(
        result.latents["save target"], result.latents["save source"], rtol=0, atol=1e-4, msg=lambda m: f"{name}: {m}"
    )
    assert result.reports()["transfer"] == f"replaced {CALLS} of {CALLS} calls"


def test_custom_samplers_work_alike(server, transferred):
    """SamplerCustomAdvanced, with its guider, noise and sigmas from nodes, gives the KSampler's result."""
    graph = graphs.transfer()
    for which, prompt, model in (("source", "source", "record"), ("target", "target", "transfer")):
        graph |= {
            f"guider {which}": graphs.node(
                "CFGGuider", model=[model, 0], positive=[prompt, 0], negative=["nothing", 0], cfg=graphs.GUIDANCE
            ),
            f"sample {which}": graphs.node(
                "SamplerCustomAdvanced",
                noise=["noise", 0],
                guider=[f"guider {which}", 0],
                sampler=["euler", 0],
                sigmas=["sigmas", 0],
                latent_image=["empty", 0],
            ),
        }
    graph["noise"] = graphs.node("RandomNoise", noise_seed=7)
    graph["euler"] = graphs.node("KSamplerSelect", sampler_name="euler")
    graph["sigmas"] = graphs.node("BasicScheduler", model=["demo", 0], scheduler="simple", steps=3, denoise=1.0)
    result = server.run(graph)
    torch.testing.assert_close(result.latents["save target"], transferred.latents["save target"], rtol=0, atol=1e-5)


def test_without_guidance_there_is_one_branch(server):
    graph = graphs.transfer()
    for which in ("source", "target"):
        graph[f"sample {which}"]["inputs"]["cfg"] = 1.0
    assert server.run(graph).reports()["transfer"] == f"replaced {CALLS // 2} of {CALLS // 2} calls"


def test_several_nodes_act_in_the_order_of_the_graph(server):
    """A recorder behind a transfer records the maps that the transfer put in."""
    graph = graphs.transfer()
    graph["again"] = graphs.record(["transfer", 0])
    graph["sample target"]["inputs"]["model"] = ["again", 0]
    graph["finish again"] = graphs.node("VDiT_FinishRecording", recorder=["again", 1], latent=["sample target", 0])
    graph["transfer again"] = graphs.node(
        "VDiT_TransferAttention", model=["demo", 0], store=["finish again", 0], gap=0.001, **graphs.where()
    )
    graph["sample again"] = graphs.sampler(["transfer again", 0], "target")
    graph["save again"] = graphs.node("SaveLatent", samples=["sample again", 0], filename_prefix="again")
    result = server.run(graph)
    torch.testing.assert_close(result.latents["save again"], result.latents["save target"], rtol=0, atol=1e-4)


def test_the_steps_may_come_from_another_node(server, transferred):
    graph = graphs.transfer() | {"text": graphs.node("PrimitiveString", value="all")}
    graph["transfer"]["inputs"]["steps"] = ["text", 0]
    assert torch.equal(server.run(graph).latents["save target"], transferred.latents["save target"])


def test_a_layer_mask_takes_the_layers_it_names(server, stock, transferred):
    def with_mask(text: str):
        graph = graphs.transfer()
        graph["mask"] = graphs.node("VDiT_LayerMask", mask=text, layers=9)
        graph["transfer"]["inputs"]["mask"] = ["mask", 0]
        return server.run(graph)

    assert torch.equal(with_mask("none").latents["save target"], stock["target"])
    assert torch.equal(with_mask("all").latents["save target"], transferred.latents["save target"])
    assert with_mask("3, 5-6:0.5").reports()["transfer"] == "replaced 18 of 18 calls"


def refused(server, graph: graphs.Graph) -> str:
    with pytest.raises(PromptFailed) as caught:
        server.run(graph)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample target": {"steps": 4}}, "Source: 3 steps, shift 3, cfg 5, 128×128×17. Target: 4 steps."),
        ({"sample target": {"latent_image": ["longer", 0]}}, "The target has another size than the source."),
        ({"record": {"layers": "7-9"}}, "Layer 9 in '7-9' is out of range: there are 9 layers, 0 to 8"),
        ({"record": {"layers": "seven"}}, "layers: Cannot read 'seven'"),
        ({"transfer": {"steps": "7-2"}}, "runs backwards"),
        ({"record": {"memory_gb": 0.1}, "sample source": {"steps": 30}}, "would weigh 0.3 GiB, and it may take 0.1"),
        ({"source": {"text": "A blue elephant"}}, "elephant"),
        ({"finish": {"latent": ["empty", 0]}}, "There is no recording of this latent"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(server, stock, change, message):
    graph = graphs.transfer()
    graph["longer"] = graphs.node("EmptyHunyuanLatentVideo", width=128, height=128, length=21, batch_size=1)
    for name, inputs in change.items():
        graph[name]["inputs"] |= inputs
    assert message in refused(server, graph)
    assert torch.equal(server.run(graphs.stock("target")).latents["save"], stock["target"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"empty": {"batch_size": 2}}, "The latent holds 2 videos"),
        ({"live": {"target": ["both", 0]}}, "Target 1 is 2 conditionings"),
        ({"live": {"target": ["later", 0]}}, "differ in end_percent, start_percent"),
    ],
)
def test_live_transfer_says_what_it_needs(server, change, message):
    graph = graphs.live() | {
        "both": graphs.node("ConditioningCombine", conditioning_1=["source", 0], conditioning_2=["target", 0]),
        "later": graphs.node("ConditioningSetTimestepRange", conditioning=["target", 0], start=0.5, end=1.0),
    }
    for name, inputs in change.items():
        graph[name]["inputs"] |= inputs
    assert message in refused(server, graph)


@pytest.mark.parametrize("tier", ["GPU", "disk"])
def test_every_tier_gives_the_same_target(server, transferred, tier):
    """On a CPU "GPU" is where the model is; what is on disk lies in ComfyUI's folder for temporary files."""
    folder = server.base / "temp" / "vdit_attention"
    before = set(folder.iterdir()) if folder.is_dir() else set()
    result = server.run(graphs.transfer(recording={"tier": tier}))
    assert torch.equal(result.latents["save target"], transferred.latents["save target"])
    made = set(folder.iterdir()) - before if folder.is_dir() else set()
    assert [len(list(new.glob("*.safetensors"))) for new in made] == ([3] if tier == "disk" else [])


def test_page_locked_ram_needs_a_gpu(server):
    with pytest.raises(PromptFailed, match="Page-locked RAM is for an NVIDIA GPU, and there is none; choose RAM"):
        server.run(graphs.transfer(recording={"tier": "pinned RAM"}))


def test_what_would_fit_is_told_and_fits(server):
    """The error's own advice, taken."""
    with pytest.raises(PromptFailed, match=r"weigh 0\.3 GiB, and it may take 0\.1 GiB of RAM: .*; 163 fit") as refused:
        server.run(graphs.transfer(steps=30, recording={"memory_gb": 0.1}))
    for advice in ("2 of these layers, for example 0-8/5", "9 of these steps", "the disk ("):
        assert advice in str(refused.value)
    graph = graphs.transfer(steps=30, recording={"memory_gb": 0.1, "steps": "0-8"})
    graph = {name: graph[name] for name in graph if "target" not in name or name == "target"}
    result = server.run(graph)
    assert result.reports()["finish"].startswith("recorded 162 calls")

"""Edit Footage in a running ComfyUI: the shipped clip, what is told, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from comfyui import graphs
from comfyui.outcomes import level, text
from comfyui.server import PromptFailed

STEPS = 4  # of which the first is left out
CALLS = 9 * 3 * 2


def edit(**changes) -> graphs.Graph:
    settings = {
        "model": ["demo", 0], "footage": ["clip", 0], "vae": ["demo", 2], "source": ["source", 0],
        "target": ["target", 0], "negative": ["nothing", 0], "change": 0.9, "target_cfg": 2.0, "source_cfg": 1.5,
        "draws": 1, "finish": 0.15, "hold": 0.0,
    }  # fmt: skip
    inputs = {name: value for name, value in (settings | graphs.where() | changes).items() if value is not None}
    return graphs.demo() | {
        "clip": graphs.node("VDiT_DemoClip"),
        "edit": graphs.node("VDiT_EditFootage", **inputs),
        "noise": graphs.node("RandomNoise", noise_seed=7),
        "euler": graphs.node("KSamplerSelect", sampler_name="euler"),
        "sigmas": graphs.node("BasicScheduler", model=["demo", 0], scheduler="simple", steps=STEPS, denoise=1.0),
        "sample": graphs.node(
            "SamplerCustomAdvanced", noise=["noise", 0], guider=["edit", 0], sampler=["euler", 0],
            sigmas=["sigmas", 0], latent_image=["edit", 1],
        ),
        "save": graphs.node("SaveLatent", samples=["sample", 0], filename_prefix="edit"),
        "save clip": graphs.node("SaveLatent", samples=["edit", 1], filename_prefix="clip"),
    }  # fmt: skip


@pytest.fixture(scope="module")
def edited(server):
    return server.run(edit())


def test_the_shipped_clip_is_edited_with_its_own_maps(edited):
    assert level(edited, "edit") == "done"
    assert text(edited, "edit") == f"edited in 3 evaluations; replaced {CALLS} of {CALLS} calls"
    found, clip = edited.latents["save"], edited.latents["save clip"]
    assert found.shape == clip.shape == (1, 16, 5, 16, 16)
    assert 0.01 < float((found - clip).abs().mean()) < 0.5 * float(clip.abs().mean())


def test_frames_do_as_a_video_does(server, edited):
    graph = edit(footage=["parts", 0]) | {"parts": graphs.node("GetVideoComponents", video=["clip", 0])}
    assert torch.equal(server.run(graph).latents["save"], edited.latents["save"])


def test_without_maps_it_says_so(server, edited):
    result = server.run(edit(strength=0.0))
    assert text(result, "edit") == "edited in 3 evaluations, without the clip's maps"
    assert not torch.allclose(result.latents["save"], edited.latents["save"], atol=1e-2)


def test_the_clip_s_recorded_maps_serve_many_edits(server, edited):
    """A walk through the clip is recorded; Transfer Attention brings its maps into an edit that takes none itself."""
    walk = edit(model=["record", 0], target=None) | {"record": graphs.record(["demo", 0])}
    walk["finish"] = graphs.node("VDiT_FinishRecording", recorder=["record", 1], latent=["sample", 0])
    renamed = json.loads(
        json.dumps(walk)
        .replace('"edit"', '"walk"')
        .replace('"sample"', '"walk sampler"')
        .replace('"save"', '"walk end"')
    )
    transfer = graphs.node(
        "VDiT_TransferAttention", model=["demo", 0], store=["finish", 0], gap=0.001, **graphs.where()
    )
    graph = renamed | edit(model=["transfer", 0], strength=0.0) | {"transfer": transfer}
    result = server.run(graph)
    assert text(result, "walk").startswith("walked through the clip in 3 evaluations")
    torch.testing.assert_close(result.latents["walk end"], result.latents["save clip"], rtol=0, atol=1e-4)
    assert level(result, "transfer") == "done", text(result, "transfer")
    torch.testing.assert_close(result.latents["save"], edited.latents["save"], rtol=0, atol=2e-3)


def test_a_region_keeps_the_rest(server):
    graph = edit(region=["mask", 0]) | {"mask": graphs.node("SolidMask", value=0.0, width=128, height=128)}
    result = server.run(graph)
    torch.testing.assert_close(result.latents["save"], result.latents["save clip"], rtol=0, atol=1e-4)


def test_hold_puts_back_what_was_hardly_changed(server, edited):
    result = server.run(edit(hold=0.25))
    found, clip, whole = result.latents["save"], result.latents["save clip"], edited.latents["save"]
    back = torch.isclose(found, clip, rtol=0, atol=1e-5).all(1)
    assert 0.2 < float(back.float().mean()) < 1
    torch.testing.assert_close(found.movedim(1, -1)[~back], whole.movedim(1, -1)[~back], rtol=0, atol=1e-4)


def test_a_change_that_leaves_nothing_to_a_sampler_is_told(server):
    result = server.run(edit(change=0.1))
    assert level(result, "edit") == "idle"
    assert "nothing to edit: all steps" in text(result, "edit")
    assert torch.equal(result.latents["save"], result.latents["save clip"])


@pytest.mark.parametrize(
    ("width", "frames", "said"),
    [(100, 17, "it is 100 × 128 px"), (128, 16, "it has 16 frames, .*13 or 17")],
)
def test_a_clip_that_does_not_fit_is_refused_with_what_does(server, width, frames, said):
    blank = graphs.node("EmptyImage", width=width, height=128, batch_size=frames, color=0)
    with pytest.raises(PromptFailed, match=said):
        server.run(edit(footage=["blank", 0]) | {"blank": blank})


def test_a_sampler_that_adds_noise_is_refused(server):
    graph = edit()
    graph["euler"]["inputs"]["sampler_name"] = "euler_ancestral"
    with pytest.raises(PromptFailed, match=r"euler_ancestral adds noise in every step.*such as euler"):
        server.run(graph)


def test_live_transfer_takes_a_clip_as_its_source(server):
    """Video to video under the clip's maps: both rows begin with the clip, and row 0 stays it."""
    graph = graphs.live() | {
        "clip": graphs.node("VDiT_DemoClip"),
        "parts": graphs.node("GetVideoComponents", video=["clip", 0]),
        "coded": graphs.node("VAEEncode", pixels=["parts", 0], vae=["demo", 2]),
    }
    graph["live"]["inputs"] |= {"footage": ["coded", 0], "latent": ["coded", 0]}
    graph["sample"]["inputs"]["denoise"] = 0.6
    result = server.run(graph)
    assert text(result, "live") == f"replaced {CALLS} of {CALLS} calls"
    assert result.latents["save"].shape[0] == 2

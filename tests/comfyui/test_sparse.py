"""Sparse Attention, its profile and its report on a real server."""

from __future__ import annotations

import json
import re

import pytest
import torch
from comfyui import graphs
from comfyui.server import PromptFailed, Result
from PIL import Image

from vdit_core.call import ModelSignature
from vdit_core.sparse.density_profile import DensityProfile

METHODS = ("block top-k", "block top-p", "window", "radial", "exact top-k", "exact top-p")


def said(result: Result, node: str) -> str:
    """The text that PreviewAny showed."""
    (text,) = (m["data"]["output"]["text"][0] for m in result.messages
               if m["type"] == "executed" and m["data"]["node"] == node)  # fmt: skip
    return text


@pytest.fixture(scope="module")
def stock(server) -> torch.Tensor:
    return server.run(graphs.stock()).latents["save"]


@pytest.mark.parametrize(
    "changes",
    [
        {"keep": 100.0},
        {"dense_layers": "all"},
        {"dense_first": 100.0},
        {"minimum_tokens": 4096},
        {"method": "block top-k", "keep": 100.0},
    ],
    ids=str,
)
def test_nothing_left_out_is_the_stock_result_bit_for_bit(server, stock, changes):
    assert torch.equal(server.run(graphs.sparsely(**changes)).latents["save"], stock)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_leaves_parts_out_and_says_so(server, stock, method):
    result = server.run(graphs.sparsely(method=method, keep=50.0, dense_layers="3", dense_first=30.0))
    found = result.latents["save"]
    assert torch.isfinite(found).all()
    assert not torch.equal(found, stock)
    report = result.reports()["sparse"]
    # 8 of 9 layers in 2 of 3 steps of 2 prompts
    assert re.match(r"computed \d+% of all maps \(32 of 54 calls at \d+%\) by .+, [\d.]+x as fast as dense", report)


def test_slower_runs_dense_and_says_so(server, stock):
    result = server.run(graphs.sparsely(method="exact top-k", if_slower="dense"))
    assert torch.equal(result.latents["save"], stock)
    assert "dense: exact masking would take" in result.reports()["sparse"]


def test_a_profile_is_measured_saved_loaded_and_pays(server, stock):
    """At the same mean density the profile is nearer to the dense latent than the uniform setting."""
    graph = graphs.sparsely(profile=["load", 0]) | {
        "profile": graphs.sparsity_profile(),
        "keep": graphs.node("VDiT_SaveSparsityProfile", profile=["profile", 0], filename_prefix="demo"),
        "load": graphs.node("VDiT_LoadSparsityProfile", file=["keep", 1]),
        "figure": graphs.node("SaveImage", images=["profile", 1], filename_prefix="sparsity/figure"),
        "say": graphs.node("PreviewAny", source=["profile", 2]),
    }
    result = server.run(graph)
    uniform = server.run(graphs.sparsely()).latents["save"]
    error, other = ((x - stock).square().mean() for x in (result.latents["save"], uniform))
    assert error < other / 2
    reports = result.reports()
    assert re.match(r"layer \d gets \d+%, layer \d \d+%", reports["profile"])
    assert reports["keep"].startswith("saved demo_")
    assert reports["load"] == "loaded exact top-k, 9 layers"
    (file,) = (server.base / "output" / "attention").glob("demo_*.json")
    assert json.loads(file.read_text())["measured"]["steps"] == 3
    assert reports["sparse"].endswith(", spent by the measured profile")
    text = said(result, "say")
    assert text.startswith("Method exact top-k, 30% of the maps on average.")
    assert "No published profile fits this model." in text
    assert len(re.findall(r"^\| \d +\|", text, re.MULTILINE)) == 9
    (picture,) = (server.base / "output" / "sparsity").glob("figure_*.png")
    with Image.open(picture) as shown:
        assert min(shown.size) >= 400


def test_each_layer_alone_is_measured_in_the_video(server):
    graph = graphs.demo() | {
        "profile": graphs.sparsity_profile(steps=2, measure="a video per layer", videos_per_batch=6),
        "figure": graphs.node("PreviewImage", images=["profile", 1]),
        "say": graphs.node("PreviewAny", source=["profile", 2]),
    }
    graph["empty"]["inputs"] |= {"width": 64, "height": 64, "length": 9}
    result = server.run(graph)
    progress = [m["data"]["text"] for m in result.messages if m["type"] == "vdit.report"]
    assert "14 of 14 videos" in progress
    text = said(result, "say")
    assert re.search(r"all layers masked [\d.]+ dB; all but \d [\d.]+; all but \d, \d ", text)
    assert re.search(r"\| alone, dB +\| SSIM +\|", text)


def test_the_report_compares_dense_uniform_and_profile(server):
    where = graphs.sparse(["demo", 0])["inputs"]
    for name in ("model", "keep", "temperature"):
        del where[name]
    graph = graphs.demo() | {
        "profile": graphs.sparsity_profile(steps=2),
        "report": graphs.node(
            "VDiT_SparseReport",
            **graphs.itself(steps=2),
            keeps="40, 20",
            profile=["profile", 0],
            **{
                k: v
                for k, v in graphs.sparse(["demo", 0])["inputs"].items()
                if k not in ("model", "keep", "temperature")
            },
        ),
        "frames": graphs.node("SaveImage", images=["report", 0], filename_prefix="report/frames"),
        "chart": graphs.node("SaveImage", images=["report", 1], filename_prefix="report/chart"),
        "table": graphs.node("PreviewAny", source=["report", 2]),
        "figures": graphs.node("PreviewAny", source=["report", 3]),
    }
    graph["empty"]["inputs"] |= {"width": 64, "height": 64, "length": 9}
    result = server.run(graph)
    videos = json.loads(said(result, "figures"))["videos"]
    assert [(one["density"], one["profiled"]) for one in videos] == [
        (0.4, False),
        (0.4, True),
        (0.2, False),
        (0.2, True),
    ]
    assert all(one["computed"] == pytest.approx(one["density"], abs=0.03) for one in videos)
    assert len(said(result, "table").splitlines()) == 2 + 1 + 4
    frames = list((server.base / "output" / "report").glob("frames_*.png"))
    assert len(frames) == 9
    with Image.open(frames[0]) as shown:
        assert shown.width >= 3 * 168, "wide enough for the labels"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dense_layers": "nine"}, "dense_layers: Cannot read 'nine'"),
        ({"dense_layers": "9"}, "Layer 9 in '9' is out of range"),
        ({"keep": 101.0}, "101"),
        ({"method": "best"}, "best"),
    ],
)
def test_what_cannot_be_meant_is_named(server, changes, message):
    with pytest.raises(PromptFailed, match=re.escape(message)):
        server.run(graphs.sparsely(**changes))


def test_the_dense_layers_may_come_from_another_node(server):
    text = {"text": graphs.node("PrimitiveString", value="all")}
    linked = server.run(graphs.sparsely(dense_layers=["text", 0]) | text).latents["save"]
    assert torch.equal(linked, server.run(graphs.sparsely(dense_layers="all")).latents["save"])


def test_a_profile_for_another_method_is_refused_before_sampling(server):
    graph = graphs.sparsely(method="window", profile=["profile", 0]) | {"profile": graphs.sparsity_profile()}
    with pytest.raises(PromptFailed, match="measured for the method 'exact top-k', not 'window'"):
        server.run(graph)


def test_auto_spends_alike_where_no_published_profile_fits(server):
    """Prompts of before have no such input."""
    auto, none, before = (
        server.run(graphs.sparsely(**changes)) for changes in ({"preset": "auto"}, {"preset": "none"}, {})
    )
    assert torch.equal(auto.latents["save"], none.latents["save"])
    assert torch.equal(before.latents["save"], none.latents["save"])
    for result in (auto, none, before):
        assert "spent" not in result.reports()["sparse"]
        assert result.reports()["sparse"].startswith("computed 30% of all maps (54 of 54 calls at 30%)")


def test_a_published_profile_of_another_shape_is_refused_before_sampling(server, stock):
    message = "of Wan2.1 14B T2V is of a model of 40 layers x 40 heads x 128; this one has 9 layers x 2 heads"
    with pytest.raises(PromptFailed, match=re.escape(message)):
        server.run(graphs.sparsely(preset="Wan2.1 14B T2V"))
    with pytest.raises(PromptFailed, match="Wan3"):
        server.run(graphs.sparsely(preset="Wan3"))


def test_a_density_profile_is_loaded_used_and_saved_again(server):
    """Of a file that `vdit sparsity import` may have written; a connected profile is used instead of a preset."""
    needed = tuple((0.02 * (layer + 1), 0.05 * (layer + 1)) for layer in range(9))
    profile = DensityProfile(ModelSignature(9, 2, 128), needed, name="the demo model", measured={"by": "nobody"})
    folder = server.base / "input" / "attention"
    folder.mkdir(parents=True, exist_ok=True)
    profile.save(folder / "needs.json")
    graph = graphs.sparsely(profile=["load", 0], preset="Wan2.1 14B T2V") | {
        "load": graphs.node("VDiT_LoadSparsityProfile", file="attention/needs.json [input]"),
        "keep": graphs.node("VDiT_SaveSparsityProfile", profile=["load", 0], filename_prefix="needs"),
    }
    result = server.run(graph)
    reports = result.reports()
    assert reports["load"] == "loaded densities of the demo model, 9 layers"
    assert reports["sparse"].startswith("computed 30% of all maps (54 of 54 calls at 30%)")
    assert reports["sparse"].endswith(", spent by the profile of the demo model")
    assert not torch.equal(result.latents["save"], server.run(graphs.sparsely()).latents["save"])
    (file,) = (server.base / "output" / "attention").glob("needs_*.json")
    assert DensityProfile.load(file) == profile
    graph["sparse"]["inputs"]["method"] = "window"
    with pytest.raises(PromptFailed, match="nothing of the method 'window'"):
        server.run(graph)


@pytest.mark.parametrize(
    "file", ["attention/../../secret.json [output]", "attention/none.json [output]", "/etc/passwd"]
)
def test_profiles_are_read_from_their_folders_only(server, file):
    graph = graphs.sparsely(profile=["load", 0]) | {"load": graphs.node("VDiT_LoadSparsityProfile", file=file)}
    with pytest.raises(PromptFailed, match="sparsity profile"):
        server.run(graph)


def test_a_transfer_and_a_recording_go_with_it(server):
    graph = graphs.transfer()
    graph["sparse"] = graphs.sparse(["transfer", 0])
    graph["sample target"]["inputs"]["model"] = ["sparse", 0]
    result = server.run(graph)
    reports = result.reports()
    assert reports["transfer"] == "replaced 54 of 54 calls"
    assert reports["sparse"].startswith("computed 30% of all maps (54 of 54 calls at 30%)")
    other = graphs.transfer()
    other["sparse"] = graphs.sparse(["demo", 0])
    other["transfer"]["inputs"]["model"] = ["sparse", 0]
    torch.testing.assert_close(server.run(other).latents["save target"], result.latents["save target"])

"""Head Mask in a running ComfyUI: every node that takes a mask acts in its heads, and files of masks come and go."""

from __future__ import annotations

import json

import pytest
import torch
from comfyui import graphs
from comfyui.server import PromptFailed

CALLS = 9 * 3 * 2  # the demo model has 9 layers of 2 heads


def head_mask(text: str, layers: int = 9, heads: int = 2):
    return graphs.node("VDiT_HeadMask", mask=text, layers=layers, heads=heads)


def layer_mask(text: str):
    return graphs.node("VDiT_LayerMask", mask=text, layers=9)


def transfer(mask, **changes):
    graph = graphs.transfer(**changes)
    graph["mask"] = mask
    graph["transfer"]["inputs"]["mask"] = ["mask", 0]
    return graph


def previewed(mask):
    """The mask alone, without a model."""
    return {"mask": mask, "preview": graphs.node("PreviewAny", source=["mask", 0])}


@pytest.fixture(scope="module")
def stock(server):
    return server.run(graphs.stock("target")).latents["save"]


def test_a_layer_mask_and_the_same_mask_of_heads_give_the_same(server, stock):
    for text in ("3, 5-6:0.5", "none"):
        results = [server.run(transfer(mask)) for mask in (layer_mask(text), head_mask(text))]
        layers, heads = (result.latents["save target"] for result in results)
        assert torch.equal(layers, heads)
        assert torch.equal(heads, stock) == (text == "none")
    assert results[1].reports()["transfer"] == "nothing to replace: no layer has a strength above 0"


def test_heads_of_a_mask_are_those_of_the_heads_input(server):
    by_mask = server.run(transfer(head_mask("all@1:0.5")))
    by_input = server.run(transfer(layer_mask("all:0.5"), heads="1"))
    assert torch.equal(by_mask.latents["save target"], by_input.latents["save target"])
    assert by_mask.reports()["transfer"] == f"replaced {CALLS} of {CALLS} calls"


def test_live_transfer_is_the_stored_one(server):
    graph = graphs.live(1)
    graph["mask"] = head_mask("all@0, 2-5@1:0.5")
    graph["live"]["inputs"]["mask"] = ["mask", 0]
    live = server.run(graph).latents["save"].split(1)[1]
    stored = server.run(transfer(head_mask("all@0, 2-5@1:0.5"))).latents["save target"]
    torch.testing.assert_close(live, stored, rtol=0, atol=2e-3)


def test_sparse_attention_takes_a_mask_in_the_place_of_the_text(server, stock):
    def latent(dense_layers: str, mask=None):
        graph = graphs.sparsely(dense_layers=dense_layers)
        if mask is not None:
            graph["mask"] = mask
            graph["sparse"]["inputs"]["dense_mask"] = ["mask", 0]
        return server.run(graph).latents["save"]

    assert torch.equal(latent("none", head_mask("all")), stock)
    assert torch.equal(latent("all", head_mask("3-5")), latent("3-5"))
    one = latent("none", head_mask("all@0"))
    assert not torch.equal(one, latent("none"))
    assert not torch.equal(one, stock)


def test_sink_control_changes_the_heads_of_a_mask(server):
    def run(mask):
        graph = graphs.edited("sink control")
        graph["mask"] = mask
        graph["sink control"]["inputs"]["mask"] = ["mask", 0]
        return server.run(graph)

    everywhere, one = run(head_mask("all")), run(head_mask("all@0"))
    assert everywhere.reports()["sink control"].startswith("changed ")
    assert one.reports()["sink control"] != everywhere.reports()["sink control"]
    assert not torch.equal(one.latents["save"], everywhere.latents["save"])
    assert run(head_mask("none")).reports()["sink control"] == "no sinks to change"


def test_a_mask_is_saved_and_loaded(server):
    graph = transfer(head_mask("all@1:0.5")) | {
        "keep": graphs.node("VDiT_SaveHeadMask", mask=["mask", 0], filename_prefix="motion/heads"),
        "load": graphs.node("VDiT_LoadHeadMask", file=["keep", 1]),
    }
    graph["transfer"]["inputs"]["mask"] = ["load", 0]
    result = server.run(graph)
    assert torch.equal(
        result.latents["save target"], server.run(transfer(head_mask("all@1:0.5"))).latents["save target"]
    )
    reports = result.reports()
    assert reports["keep"].startswith("saved heads_")
    assert reports["load"] == "loaded all@1:0.5"
    (file,) = (server.base / "output" / "attention" / "motion").glob("heads_*.headmask")
    found = json.loads(file.read_text())
    assert (found["text"], found["layers"], found["heads"]) == ("all@1:0.5", 9, 2)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (head_mask("3@first"), "Cannot read 'first'"),
        (head_mask("3@2"), "Head 2 in '2' is out of range: there are 2 heads, 0 to 1"),
        (layer_mask("9"), "Layer 9 in '9' is out of range: there are 9 layers, 0 to 8"),
        (head_mask("9@0", 0, 0), "Layer 9 in '9' is out of range: there are 9 layers, 0 to 8"),
        (head_mask("3@0", 9, 12), "was made for a model of 12 heads; this one has 2. Make a new mask for this model."),
        (graphs.node("VDiT_LoadHeadMask", file="attention/none.headmask [output]"), "There is no head mask"),
        (graphs.node("VDiT_LoadHeadMask", file="attention/../../x.headmask [output]"), "is not a head mask in output"),
    ],
    ids=["unreadable", "head", "layer", "layer of a model not named", "other model", "no file", "outside"],
)
def test_what_does_not_fit_is_refused(server, mask, message):
    with pytest.raises(PromptFailed) as caught:
        server.run(transfer(mask))
    assert message in str(caught.value)


@pytest.mark.parametrize("mask", [layer_mask("3-999x"), head_mask("3-999x")], ids=["layers", "heads"])
def test_a_text_that_cannot_be_read_is_one_error_at_its_own_input(server, mask):
    with pytest.raises(PromptFailed) as caught:
        server.run(previewed(mask))
    (error,) = json.loads(str(caught.value))["node_errors"]["mask"]["errors"]
    assert error["extra_info"]["input_name"] == "mask"
    assert error["details"].startswith("mask - Cannot read '3-999x'")


@pytest.mark.parametrize("make", [layer_mask, head_mask])
def test_the_text_may_come_from_another_node(server, make):
    graph = previewed(make(["text", 0])) | {"text": graphs.node("PrimitiveString", value="3-5")}
    assert "mask" in server.run(graph).ran
    graph["text"]["inputs"]["value"] = "3-999x"
    with pytest.raises(PromptFailed, match="Cannot read '3-999x'"):
        server.run(graph)


def test_only_masks_go_into_an_input_for_masks(server):
    graph = graphs.transfer()
    graph["transfer"]["inputs"]["mask"] = ["finish", 0]
    with pytest.raises(PromptFailed, match="LAYER_MASK,HEAD_MASK"):
        server.run(graph)

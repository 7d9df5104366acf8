"""Head Roles on a real server: its table, its picture, and its mask in a transfer."""

from __future__ import annotations

import json
import re

import pytest
import torch
from comfyui import graphs
from comfyui.server import PromptFailed
from PIL import Image

STEPS = 3


def described(**changes) -> graphs.Graph:
    return (
        graphs.demo()
        | graphs.recorded("store", "source", steps=STEPS)
        | {
            "roles": graphs.head_roles("store", **changes),
            "save": graphs.node("SaveImage", images=["roles", 1], filename_prefix="roles"),
            "table": graphs.node("PreviewAny", source=["roles", 2]),
            "report": graphs.node("PreviewAny", source=["roles", 3]),
        }
    )


def said(result, node: str) -> str:
    (text,) = (m["data"]["output"]["text"][0] for m in result.messages if m["data"].get("node") == node
               and m["type"] == "executed")  # fmt: skip
    return text


def test_every_head_has_a_role(server):
    result = server.run(described())
    found = json.loads(said(result, "report"))
    assert len(found["heads"]) == 18
    assert found["calls"] == 9 * STEPS
    roles = {(head["layer"], head["head"]): head["role"] for head in found["heads"]}
    assert {roles[5, 0], roles[5, 1]} <= {"tracker", "motion"}
    assert roles[8, 0] == "layout"
    along_time = found["presets"]["motion only"].split(", ")
    assert result.reports()["roles"] == f"motion only: {len(along_time)} of 18 heads"
    assert len(re.findall(r"^\| \d@\d +\|", said(result, "table"), re.MULTILINE)) == 18
    with Image.open(max((server.base / "output").glob("roles_*.png"))) as picture:
        assert min(picture.size) > 400
        assert len(picture.convert("RGB").getcolors(2**24)) > 50


def test_its_mask_is_that_of_the_report_in_a_transfer(server):
    """The same clip as with the same heads in a Head Mask."""
    report = json.loads(said(server.run(described()), "report"))
    mask = report["presets"]["motion only"]

    def transferred(node) -> torch.Tensor:
        graph = graphs.transfer(steps=STEPS) | graphs.recorded("store", "source", steps=STEPS) | {"mask": node}
        graph["transfer"]["inputs"]["mask"] = ["mask", 0]
        result = server.run(graph)
        calls = len({term.partition("@")[0] for term in mask.split(", ")}) * STEPS * 2
        assert result.reports()["transfer"] == f"replaced {calls} of {calls} calls"
        return result.latents["save target"]

    by_hand = transferred(graphs.node("VDiT_HeadMask", mask=mask, layers=9, heads=2))
    assert torch.equal(transferred(graphs.head_roles("store")), by_hand)


def test_a_second_recording_counts(server):
    graph = described(second=["other", 0]) | graphs.recorded("other", "source", seed=8, steps=STEPS)
    found = json.loads(said(server.run(graph), "report"))
    assert (found["videos"], found["calls"]) == (2, 2 * 9 * STEPS)


def test_an_empty_preset_is_told(server):
    result = server.run(described(layers="8", preset="motion only"))
    assert result.reports()["roles"] == "no head is motion, tracker: the mask is empty, choose another preset"
    assert json.loads(said(result, "report"))["presets"]["motion only"] == "none"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": "7"}, "Step 7 in '7' is out of range"),
        ({"layers": "nine"}, "Cannot read 'nine'"),
        ({"branch": "cond 2"}, "Branch 'cond 2' was not recorded; the store holds cond, uncond"),
    ],
)
def test_what_is_not_there_is_named(server, changes, message):
    with pytest.raises(PromptFailed, match=re.escape(message)):
        server.run(described(**changes))


def test_recordings_of_two_sizes_are_refused(server):
    graph = described(second=["other", 0]) | graphs.recorded("other", "source")
    graph["wide"] = graphs.node("EmptyHunyuanLatentVideo", width=160, height=128, length=17, batch_size=1)
    graph["sample other"]["inputs"]["latent_image"] = ["wide", 0]
    with pytest.raises(PromptFailed, match=re.escape("different grids: 5 x 8 x 8 = 320 tokens and 5 x 8 x 10 = 400")):
        server.run(graph)

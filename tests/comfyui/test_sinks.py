"""Sink Inspector and Sink Control on a real server."""

from __future__ import annotations

import json
import re
import urllib.request
from urllib.parse import urlencode

import numpy as np
import pytest
import torch
from comfyui import graphs
from comfyui.server import PromptFailed, Result
from PIL import Image

#: In the demo model no key takes 16 times its uniform share; some take 3 times, evenly enough: they are sinks here.
LOW = 2.5


def said(result: Result, node: str) -> str:
    (text,) = (m["data"]["output"]["text"][0] for m in result.messages
               if m["type"] == "executed" and m["data"]["node"] == node)  # fmt: skip
    return text


def panel(result: Result) -> dict:
    """What the page's panel is told."""
    (told,) = (m["data"]["output"]["vdit_sinks"][0] for m in result.messages
               if m["type"] == "executed" and m["data"]["node"] == "inspect")  # fmt: skip
    return told


def test_the_demo_model_has_no_sinks_and_that_is_said(server):
    result = server.run(graphs.sinks())
    assert said(result, "say").startswith("No sinks: in none of 18 heads does a key take 16 times its uniform share")
    assert re.fullmatch(r"recorded|measured 54 calls, [\d.]+ MiB", result.reports()["measured"])
    assert re.match(r"no sinks; strongest key \d x uniform", result.reports()["inspect"])
    assert json.loads(said(result, "figures"))["sinks"] == []


@pytest.fixture(scope="module")
def inspected(server) -> Result:
    pictures = {
        name: graphs.node("SaveImage", images=["inspect", n], filename_prefix=f"sinks/{name}")
        for n, name in ((1, "heads"), (2, "map"), (3, "steps"))
    }
    return server.run(graphs.sinks(ratio=LOW) | pictures)


def test_what_is_found_is_drawn(server, inspected):
    assert said(inspected, "say").startswith("Strongest keys in ")
    assert json.loads(said(inspected, "figures"))["sinks"]
    for name in ("heads", "map", "steps"):
        (file,) = (server.base / "output" / "sinks").glob(f"{name}_*.png")
        with Image.open(file) as picture:
            assert min(picture.size) >= 200


def fetch(server, folder: str, name: str, first: int, count: int) -> bytes:
    query = urlencode({"filename": name, "subfolder": folder, "type": "temp"})
    asked = urllib.request.Request(
        f"{server.url}/view?{query}", headers={"Range": f"bytes={first}-{first + count - 1}"}
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:
        assert answer.status == 206
        return answer.read()


def test_the_panel_gets_its_pieces(server, inspected):
    told = panel(inspected)
    assert told["grid"] == {"frames": 5, "height": 8, "width": 8, "prefix": 0, "suffix": 0}
    assert [call["step"] for call in told["calls"]] == [0, 0, 1, 1, 2, 2]
    assert np.array(told["peaks"]).shape == (6, 9, 2)
    assert told["frames"] == 5
    call, head = 3, 1
    codes = np.frombuffer(fetch(server, told["folder"], "layer-04.mass", (call * 2 + head) * 320, 320), np.uint8)
    ratios = 2 ** ((codes.astype(float) - told["code"]["uniform"]) / told["code"]["per_doubling"])
    assert ratios.mean() == pytest.approx(1, abs=0.05)
    assert ratios.max() == pytest.approx(told["peaks"][call][4][head], rel=0.05)
    size = told["strongest"] * 20
    table = np.frombuffer(fetch(server, told["folder"], "layer-04.strongest", (call * 2 + head) * size, size), "<f4")
    table = table.reshape(-1, 5)
    token = int(table[0, 0].view("<i4"))
    assert codes[token] == codes.max()
    assert table[0, 1] * 320 == pytest.approx(told["peaks"][call][4][head], rel=1e-2)
    with urllib.request.urlopen(
        f"{server.url}/view?" + urlencode({"filename": "frame-04.jpg", "subfolder": told["folder"], "type": "temp"})
    ) as answer:
        assert answer.read(3) == b"\xff\xd8\xff"


def test_the_panel_is_output_enough(server):
    """With nothing behind the node it runs; and a page that was loaded anew is told what is in the cache."""
    graph = {name: node for name, node in graphs.sinks(steps=2).items() if name not in ("say", "figures")}
    told = panel(server.run(graph))
    again = server.run(graph)
    assert "inspect" not in again.ran
    assert panel(again) == told


@pytest.mark.parametrize("action", ["mask", "cap", "mean", "skip"])
@pytest.mark.parametrize("of", ["the sinks", "random others"])
def test_sinks_are_changed_in_the_run(server, action, of):
    graph = graphs.sinks(ratio=LOW) | {
        "control": graphs.node(
            "VDiT_SinkControl", model=["demo", 0], sinks=["inspect", 0], action=action, of=of, cap=0.5, random_seed=1
        ),
        "sample": graphs.sampler(["control", 0], "source"),
        "save": graphs.node("SaveLatent", samples=["sample", 0], filename_prefix="control"),
        "save stock": graphs.node("SaveLatent", samples=["measured", 1], filename_prefix="stock"),
    }  # fmt: skip
    result = server.run(graph)
    assert not torch.equal(result.latents["save"], result.latents["save stock"])
    assert re.match(r"changed \d+ calls: \d+ heads, \d+ keys", result.reports()["control"])


def test_a_recording_of_queries_and_keys_serves_too(server):
    graph = graphs.sinks()
    graph["record measured"]["inputs"]["what"] = "both"
    graph["again"] = graphs.node(
        "VDiT_SinkInspector", record=["measured", 0], ratio=16.0, participation=0.25, layer=3, head=1
    )
    graph["say again"] = graphs.node("PreviewAny", source=["again", 5])
    result = server.run(graph)
    ours, theirs = (json.loads(said(result, name)) for name in ("figures", "say again"))
    assert np.array(ours["peak"]) == pytest.approx(np.array(theirs["peak"]), rel=1e-3)
    assert ours["common"][0][0] is not None
    assert theirs["common"][0][0] is None


def test_what_was_not_measured_is_named(server):
    graph = graphs.sinks()
    graph["record measured"]["inputs"]["what"] = "queries and keys"
    with pytest.raises(PromptFailed, match="choose 'statistics' or 'both' in Record Attention"):
        server.run(graph)
    graph = graphs.sinks()
    graph["inspect"]["inputs"]["layer"] = 9
    with pytest.raises(PromptFailed, match=r"Layer 9 was not measured; there are layers \[0, 1"):
        server.run(graph)


def test_sinks_of_another_size_are_refused(server):
    graph = graphs.sinks(ratio=LOW) | {
        "control": graphs.node(
            "VDiT_SinkControl", model=["demo", 0], sinks=["inspect", 0], action="mask", of="the sinks", cap=1.0,
            random_seed=0,
        ),
        "small": graphs.node("EmptyHunyuanLatentVideo", width=64, height=64, length=17, batch_size=1),
        "sample": graphs.sampler(["control", 0], "source", latent_image=["small", 0]),
        "save": graphs.node("SaveLatent", samples=["sample", 0], filename_prefix="control"),
    }  # fmt: skip
    with pytest.raises(PromptFailed, match="found in a grid of 5 x 8 x 8 = 320 tokens; this run has 5 x 4 x 4"):
        server.run(graph)

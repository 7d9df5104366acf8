"""Layer Sweep on a real server."""

from __future__ import annotations

import re

import pytest
from comfyui import graphs
from comfyui.server import PromptFailed, Result

WINTER = graphs.SOURCE + " in the winter"


def table(result: Result) -> list[str]:
    """The rows of the scores that it showed."""
    said = [m["data"]["output"]["text"][0] for m in result.messages if m["type"] == "executed"
            and m["data"]["node"] == "say"]  # fmt: skip
    return said[0].splitlines()[2:]


def sweep(**changes) -> graphs.Graph:
    """Of small clips: a CPU decodes eleven of each sweep."""
    graph = graphs.sweep(**changes)
    graph["target"]["inputs"]["text"] = WINTER
    graph["empty"]["inputs"] |= {"width": 64, "height": 64, "length": 9}
    return graph


def test_every_layer_has_its_row_and_the_mask_plugs_in(server):
    graph = sweep() | {
        "live": graphs.node(
            "VDiT_LiveTransfer", model=["demo", 0], source=["source", 0], target=["target", 0], latent=["empty", 0],
            mask=["sweep", 0], **graphs.where(),
        ),
        "sample": graphs.sampler(["live", 0], "live", positive=["live", 1], latent_image=["live", 2]),
        "save live": graphs.node("SaveLatent", samples=["sample", 0], filename_prefix="live"),
    }  # fmt: skip
    result = server.run(graph)
    rows = table(result)
    assert len(rows) == 10
    assert [re.match(r"\| (plain|layer \d)", row)[1] for row in rows] == ["plain", *(f"layer {i}" for i in range(9))]
    starred = [int(i) for i in re.findall(r"layer (\d) \*", "\n".join(rows))]
    assert starred
    assert result.reports()["live"] == f"replaced {len(starred) * 6} of {len(starred) * 6} calls"


def test_batches_give_what_one_batch_gives(server):
    one, many = (table(server.run(sweep(steps=2, videos_per_batch=n))) for n in (11, 5))
    for left, right in zip(one, many, strict=True):
        numbers = [[float(x) for x in re.findall(r"-?\d+\.\d+", row)] for row in (left, right)]
        assert numbers[0] == pytest.approx(numbers[1], abs=0.02)


def test_an_interrupted_sweep_goes_on(server):
    graph = sweep(steps=4, seed=11, videos_per_batch=3)
    with pytest.raises(PromptFailed, match="interrupted"):
        server.run(graph, interrupt_at="sweep", interrupt_after=10)  # in the third of five batches of four steps
    result = server.run(graph)
    assert len(table(result)) == 10
    sampled = [m for m in result.messages if m["type"] == "progress" and m["data"].get("node") == "sweep"]
    assert max(m["data"]["max"] for m in sampled) == 4
    assert sum(m["data"]["value"] == 4 for m in sampled) <= 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"videos_per_batch": 1}, "a batch of 1 holds no target beside the source"),
        ({"transfer_steps": "9"}, "Step 9 in '9' is out of range"),
        ({"mode": "some"}, "Value not in list"),
    ],
)
def test_mistakes_are_named(server, changes, message):
    with pytest.raises(PromptFailed, match=re.escape(message)):
        server.run(sweep(**changes))

"""Bypassed, muted or deleted in the page, a node of the pack leaves the stock model's latents, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from comfyui import graphs

BYPASSED = 4


@pytest.fixture(scope="module")
def stock(server):
    return {prompt: server.run(graphs.stock(prompt)).latents["save"] for prompt in ("source", "target")}


def sent_by(comfy, api: graphs.Graph, change: str) -> dict[str, Any]:
    """The prompt that the page would send of a graph, after a change in the page."""
    sent = comfy.js(
        f"""async (graph) => {{
            await app.loadApiJson(graph, "test");
            const find = (type) => app.rootGraph.nodes.find((node) => node.type === type);
            {change}
            return (await app.graphToPrompt()).output;
        }}""",
        api,
    )
    comfy.draw()
    return sent


def numbered(api: graphs.Graph) -> graphs.Graph:
    """The page knows nodes by number."""
    numbers = {name: str(n) for n, name in enumerate(api, start=1)}

    def renamed(value: Any) -> Any:
        return [numbers[value[0]], value[1]] if isinstance(value, list) else value

    return {
        numbers[name]: node | {"inputs": {key: renamed(value) for key, value in node["inputs"].items()}}
        for name, node in api.items()
    }


def latent_of(comfy, prompt: dict[str, Any], prefix: str) -> torch.Tensor:
    save = next(name for name, node in prompt.items() if node["inputs"].get("filename_prefix") == prefix)
    return comfy.server.run(prompt).latents[save]


@pytest.mark.parametrize(
    "change",
    [
        f"find('VDiT_TransferAttention').mode = {BYPASSED};",
        """const transfer = find('VDiT_TransferAttention'), demo = find('VDiT_DemoModel');
        const sampler = app.rootGraph.getNodeById(transfer.outputs[0].links.map((id) => app.rootGraph.links.get(id))[0]
          .target_id);
        app.rootGraph.remove(transfer);
        demo.connect(0, sampler, 0);""",
    ],
    ids=["bypassed", "deleted"],
)
def test_a_transfer_that_is_off_is_stock(comfy, stock, change):
    prompt = sent_by(comfy, numbered(graphs.transfer()), change)
    assert "VDiT_TransferAttention" not in [node["class_type"] for node in prompt.values()]
    assert torch.equal(latent_of(comfy, prompt, "target"), stock["target"])


def test_a_bypassed_live_transfer_samples_the_source_alone(comfy, stock):
    prompt = sent_by(comfy, numbered(graphs.live()), f"find('VDiT_LiveTransfer').mode = {BYPASSED};")
    assert torch.equal(latent_of(comfy, prompt, "live"), stock["source"])


def test_a_muted_recorder_takes_with_it_what_needs_it_and_no_more(comfy, stock):
    """The target's sampler has lost its model: the page drops it, and what is left is stock."""
    graph = graphs.transfer() | {
        "plain": graphs.sampler(["demo", 0], "target"),
        "save plain": graphs.node("SaveLatent", samples=["plain", 0], filename_prefix="plain"),
    }
    for name in ("save source", "save target"):
        del graph[name]
    prompt = sent_by(comfy, numbered(graph), "find('VDiT_RecordAttention').mode = 2;")
    assert torch.equal(latent_of(comfy, prompt, "plain"), stock["target"])

"""The subgraph blueprints: a transfer as one node."""

from __future__ import annotations

import json

import pytest
from comfyui.installation import PACK
from PIL import Image

BLUEPRINTS = sorted(file.stem for file in (PACK / "subgraphs").glob("*.json"))
INPUTS = {"model", "source prompt", "target prompt", "negative prompt", "empty latent", "vae", "mask"}

#: A blueprint's node, connected to the demo model. Argument: the blueprint.
BUILD = """async (blueprint) => {
    await app.loadGraphData(blueprint);
    const transfer = app.rootGraph.nodes[0];
    const add = (kind, values = {}) => {
        const node = LiteGraph.createNode(kind);
        app.rootGraph.add(node);
        for (const [name, value] of Object.entries(values)) node.widgets.find((w) => w.name === name).value = value;
        return node;
    };
    const demo = add("VDiT_DemoModel");
    const texts = ["A car is driving on the highway", "A red car is driving on the highway", ""].map((text) => {
        const node = add("CLIPTextEncode", { text });
        demo.connect(1, node, 0);
        return node;
    });
    const size = add("EmptyHunyuanLatentVideo", { width: 128, height: 128, length: 17 });
    const slot = (name) => transfer.inputs.findIndex((input) => input.name === name);
    demo.connect(0, transfer, slot("model"));
    demo.connect(2, transfer, slot("vae"));
    size.connect(0, transfer, slot("latent"));
    ["source", "target", "negative"].forEach((name, n) => texts[n].connect(0, transfer, slot(name)));
    for (const [name, value] of [["steps", 3], ["cfg", 5], ["seed", 7], ["sampler_name", "euler"]]) {
        transfer.widgets.find((widget) => widget.name === name).value = value;
    }
    for (const n of [0, 1]) {
        const save = add("SaveImage", { filename_prefix: `blueprint/${n}` });
        transfer.connect(n, save, 0);
    }
    const shown = transfer.inputs.filter((input) => !input.widget).map((input) => input.label ?? input.name);
    return [shown, (await app.graphToPrompt()).output];
}"""


def blueprint(name: str) -> dict:
    return json.loads((PACK / "subgraphs" / f"{name}.json").read_text(encoding="utf-8"))


def test_the_server_offers_them(server):
    offered = server.get("/global_subgraphs")
    assert sorted(one["name"] for one in offered.values() if one["source"] == "custom_node") == BLUEPRINTS
    assert len(BLUEPRINTS) == 2


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_one_node_makes_both_videos(server, comfy, name):
    shown, prompt = comfy.js(BUILD, blueprint(name))
    assert set(shown) == INPUTS
    found = server.run(prompt)
    assert "replaced 54 of 54 calls" in found.reports().values()
    folder = server.base / "output" / "blueprint"
    source, target = (sorted(folder.glob(f"{n}_*.png"))[-17:] for n in (0, 1))
    assert (len(source), len(target)) == (17, 17)
    with Image.open(source[8]) as one, Image.open(target[8]) as other:
        assert one.size == other.size == (128, 128)
        assert one.tobytes() != other.tobytes()


def test_both_make_the_same_videos(server, page_of):
    """Recorded or live: the target has the same maps."""
    pictures = []
    for name in BLUEPRINTS:
        comfy = page_of("canvas")
        comfy.empty()
        _, prompt = comfy.js(BUILD, blueprint(name))
        for node in prompt.values():
            if node["class_type"] == "VDiT_RecordAttention":
                node["inputs"]["quantization"] = "none"
        server.run(prompt)
        with Image.open(sorted((server.base / "output" / "blueprint").glob("1_*.png"))[-1]) as frame:
            pictures.append(frame.convert("RGB"))
    apart = [abs(a - b) for a, b in zip(*(picture.tobytes() for picture in pictures), strict=True)]
    assert sum(apart) / len(apart) < 0.5

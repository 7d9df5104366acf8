"""The example workflows, opened from the server as the templates browser does, and run."""

from __future__ import annotations

import json
import re
import urllib.request
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import torch
from comfyui import graphs
from comfyui.installation import PACK
from comfyui.server import FOLDER_NAME

from vdit_core.hosts.diffusers import attach
from vdit_core.recording.recorder import Recorder
from vdit_core.transfer import Transfer

EXAMPLES = sorted(file.stem for file in (PACK / "example_workflows").glob("*.json"))
#: What is run, by number: a summary that must be among those shown, the frames of its video, and steps to set, if fewer
#: than the workflow's show the same.
RUN = {
    "1": ("replaced 540 of 540 calls", 17, None),  # 9 layers x 30 steps x 2
    "2": ("replaced 540 of 540 calls", 17, None),
    "5": ("replaced 180 of 180 calls", 17, 10),
    "6": ("108 maps, all queries each", 6, None),
    "7": (r"replaced ([1-9]\d*) of \1 calls", 17, 15),  # after fewer, no layer stands out
    "10": (r"computed 30% of all maps \((\d+) of \1 calls at 30%\) by exact masking, .+", 17, 4),
    "12": (r"changed 80 calls: 4 heads, \d+ keys", 17, 10),  # 4 layers x 10 steps x 2
    "20": (r"edited in 27 evaluations; replaced (\d+) of \1 calls", 17, None),
    "23": (r"replaced 540 of 540 calls", 17, None),
}
#: A further summary that must be among those shown.
BESIDE = {"6": r"cosine similarity 0\.\d+, 54 pairs of maps", "7": r"Structure layers \(\*\): [\d, ]+\.",
          "12": r"\d+ strongest keys in 4 heads, no sinks; strongest key \d x uniform"}  # fmt: skip
RUN_MS = 600_000  # half a minute if nobody else wants the two cores

WATCH = """() => {
    window.told = { reports: [], end: null };
    if (window.watching) return;
    window.watching = true;
    app.api.addEventListener("vdit.report", ({ detail }) => told.reports.push(detail));
    for (const end of ["execution_success", "execution_error", "execution_interrupted"]) {
        app.api.addEventListener(end, ({ detail }) => (told.end = { ...detail, end }));
    }
}"""

PLAYS = "() => [...document.querySelectorAll('video')].some((video) => video.readyState >= 2 && video.videoWidth > 0)"

SET_STEPS = """(steps) => {
    const widgets = app.rootGraph.nodes.flatMap((node) => node.widgets ?? []);
    for (const widget of widgets.filter((w) => w.name === "steps" && w.value > steps)) widget.value = steps;
}"""


def number(name: str) -> str:
    """The one before the first space."""
    return name.split()[0]


def fetch(server, name: str, suffix: str) -> bytes:
    address = f"{server.url}/api/workflow_templates/{FOLDER_NAME}/{quote(name)}.{suffix}"
    with urllib.request.urlopen(address, timeout=30) as answer:
        return answer.read()


def open_example(comfy, name: str) -> dict[str, Any]:
    workflow = json.loads(fetch(comfy.server, name, "json"))
    comfy.load(workflow)
    comfy.page.wait_for_function("(count) => app.rootGraph.nodes.length === count", arg=len(workflow["nodes"]))
    return workflow


def graphs_of(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    """The graph, and those of its subgraphs."""
    return [workflow, *workflow.get("definitions", {}).get("subgraphs", [])]


def run(comfy) -> dict[str, Any]:
    """Queue what is open; what the server told the page."""
    comfy.js(WATCH)
    comfy.js("() => void app.queuePrompt(0)")
    comfy.rest()
    comfy.page.wait_for_function("() => told.end", timeout=RUN_MS, polling=100)
    comfy.wake()
    told = comfy.js("() => told")
    assert told["end"]["end"] == "execution_success", told["end"]
    return told


def files(comfy, told: dict[str, Any]) -> list[Path]:
    """The files that the run's history names."""
    outputs = comfy.server.get(f"/history/{told['end']['prompt_id']}")[told["end"]["prompt_id"]]["outputs"]
    named = [file for output in outputs.values() for file in output.get("images", ())]
    return [comfy.server.base / file["type"] / file["subfolder"] / file["filename"] for file in named]


def test_the_server_offers_them(server):
    assert sorted(server.get("/workflow_templates")[FOLDER_NAME]) == EXAMPLES
    for name in EXAMPLES:
        assert fetch(server, name, "jpg")[:3] == b"\xff\xd8\xff"


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_opens_whole(comfy, name):
    """Its nodes and links, and those of its subgraph."""
    workflow = open_example(comfy, name)
    shown = comfy.js(
        """() => [app.rootGraph, ...app.rootGraph.subgraphs.values()].map((graph) => ({
            types: graph.nodes.map((node) => node.type).sort(),
            missing: graph.nodes.map((node) => node.type).filter((type) => !LiteGraph.registered_node_types[type]),
            links: graph.nodes.flatMap((node) => node.inputs.map((input) => input.link)).filter(Boolean).length,
        }))"""
    )
    assert len(shown) == len(graphs_of(workflow))
    for found, saved in zip(shown, graphs_of(workflow), strict=True):
        nodes = saved["nodes"]
        assert found["types"] == sorted(node["type"] for node in nodes)
        assert found["missing"] == []
        assert found["links"] == sum(slot.get("link") is not None for n in nodes for slot in n.get("inputs", ()))


#: What of the canvas no toolbar covers: it begins below the tabs. The nodes that are not wholly in it.
OUTSIDE = """() => {
    const { ds, canvas } = app.canvas, { width, height } = canvas.getBoundingClientRect();
    return app.rootGraph.nodes.filter(({ pos: [x, y], size }) => {
        const [left, top] = [(x + ds.offset[0]) * ds.scale, (y - 30 + ds.offset[1]) * ds.scale];
        return left < 0 || top < 0 || left + size[0] * ds.scale > width || top + (size[1] + 30) * ds.scale > height;
    }).map((node) => node.title);
}"""


def test_the_first_example_opens_whole_and_readable(comfy):
    """On a screen of 1600 x 950 px: nothing is outside, and letters are of 8 px, below which the page draws none."""
    before = comfy.page.viewport_size
    comfy.page.set_viewport_size({"width": 1600, "height": 950})
    open_example(comfy, next(name for name in EXAMPLES if number(name) == "1"))
    comfy.draw()
    outside, scale = comfy.js(OUTSIDE), comfy.js("() => app.canvas.ds.scale")
    comfy.page.set_viewport_size(before)
    assert outside == []
    assert 14 * scale >= 8


def test_each_has_an_id_of_its_own():
    """By it the page tells which workflow a report is of."""
    ids = [
        json.loads((PACK / "example_workflows" / f"{name}.json").read_text(encoding="utf-8"))["id"] for name in EXAMPLES
    ]
    assert len(set(ids)) == len(ids)
    assert uuid.UUID(int=0).urn.removeprefix("urn:uuid:") not in ids


BOXES = """() => app.canvas.graph.nodes.map((node) => {
    const element = LiteGraph.vueNodesMode && document.querySelector(`[data-node-id="${node.id}"]`);
    const [x, y] = node.pos, top = y - LiteGraph.NODE_TITLE_HEIGHT;
    const height = element ? element.getBoundingClientRect().height / app.canvas.ds.scale : 0;
    return [node.title, x, top, x + node.size[0], Math.max(y + node.size[1], top + height)];
})"""
OPEN = """() => {
    const node = app.rootGraph.nodes.find((node) => node.subgraph);
    if (node) app.canvas.openSubgraph(node.subgraph, node);
    return Boolean(node);
}"""


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_node_lies_on_another(comfy, name):
    open_example(comfy, name)
    assert overlaps(comfy.js(BOXES)) == []
    if comfy.js(OPEN):
        comfy.draw()
        inside = comfy.js(BOXES)
        comfy.js("() => app.canvas.setGraph(app.rootGraph)")
        assert len(inside) > 10
        assert overlaps(inside) == []


def overlaps(boxes: list[list[Any]]) -> list[tuple[str, str]]:
    """Nodes that lie on one another, of boxes (title, left, top, right, bottom)."""
    return [
        (a, b)
        for i, (a, left, top, right, bottom) in enumerate(boxes)
        for b, left_b, top_b, right_b, bottom_b in boxes[:i]
        if left < right_b and left_b < right and top < bottom_b and top_b < bottom
    ]


# The first one last: the server still has what it sampled when the next test asks for it.
@pytest.mark.parametrize("name", [name for name in reversed(EXAMPLES) if number(name) in RUN])
def test_it_runs_to_a_video(page_of, name):
    """The file has its frames, and the page shows it, and above the node what was done."""
    av = pytest.importorskip("av")
    expected, frames, steps = RUN[number(name)]
    comfy = page_of("canvas")
    comfy.empty()
    open_example(comfy, name)
    if steps:
        comfy.js(SET_STEPS, steps)
    spent = comfy.server.cpu_seconds()
    told = run(comfy)
    spent = comfy.server.cpu_seconds() - spent
    assert any(re.fullmatch(expected, report["text"]) for report in told["reports"]), told["reports"]
    beside = BESIDE.get(number(name), ".*")
    assert any(re.fullmatch(beside, report["text"]) for report in told["reports"]), told["reports"]
    assert all(report["good"] for report in told["reports"])
    (video,) = (file for file in files(comfy, told) if file.suffix == ".mp4")
    with av.open(video) as file:
        assert sum(1 for _ in file.decode(video=0)) == frames
    comfy.show_all()
    comfy.page.wait_for_function(PLAYS, timeout=30_000)
    assert re.search(f"✓ {expected}", " ".join(comfy.written()))
    if steps is None:
        assert spent <= 90, "a server with one thread: two cores take no longer"
    assert comfy.complaints == []


def test_the_first_example_is_vdit_demo(page_of, demo_model):
    """30 steps of three samplers, and what `vdit demo` makes of the same seed: the same latents, up to rounding."""
    comfy = page_of("canvas")
    comfy.empty()
    open_example(comfy, next(name for name in EXAMPLES if number(name) == "1"))
    prompt = comfy.js("async () => (await app.graphToPrompt()).output")
    (target,) = (n["inputs"]["text"] for n in prompt.values() if n["_meta"]["title"] == "Target prompt")
    samplers = {
        node["_meta"]["title"].split(": ")[1]: id for id, node in prompt.items() if "sampler_name" in node["inputs"]
    }
    kept = {
        f"save {id}": graphs.node("SaveLatent", samples=[id, 0], filename_prefix="example") for id in samplers.values()
    }
    found = comfy.server.run({id: node for id, node in prompt.items() if node["class_type"] != "SaveVideo"} | kept)

    recorder = Recorder()
    with attach(demo_model.pipe, recorder):
        source = demo_model.sample([graphs.SOURCE], [1])
    with attach(demo_model.pipe, Transfer(recorder.store)):
        transferred = demo_model.sample([target], [1])
    wanted = {"source": source, "target, source’s maps": transferred}
    vae = demo_model.pipe.vae
    mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
    for title, latent in wanted.items():
        got = found.latents[f"save {samplers[title]}"]
        torch.testing.assert_close(got, latent * std + mean, rtol=0, atol=5e-3, msg=lambda m, t=title: f"{t}: {m}")

"""The example workflows, opened from the server as the templates browser does, and run."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from comfyui.installation import PACK
from comfyui.server import FOLDER_NAME

EXAMPLES = sorted(file.stem for file in (PACK / "example_workflows").glob("*.json"))
#: What is run, by number: a summary that must be among those shown, the frames of its video, and steps to set, if fewer
#: than the workflow's show the same.
RUN = {
    "1": ("replaced 540 of 540 calls", 17, None),  # 9 layers x 30 steps x 2
    "2": ("replaced 540 of 540 calls", 17, None),
    "5": ("replaced 540 of 540 calls", 17, None),
    "6": ("108 maps, all queries each", 6, None),
    "7": (r"replaced (\d+) of \1 calls", 17, 4),
}
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

SET_STEPS = """(steps) => {
    const widgets = app.rootGraph.nodes.flatMap((node) => node.widgets ?? []);
    for (const widget of widgets.filter(({ name, value }) => name === "steps" && value === 30)) widget.value = steps;
}"""


def fetch(server, name: str, suffix: str) -> bytes:
    address = f"{server.url}/api/workflow_templates/{FOLDER_NAME}/{quote(name)}.{suffix}"
    with urllib.request.urlopen(address, timeout=30) as answer:
        return answer.read()


def open_example(comfy, name: str) -> None:
    comfy.load(json.loads(fetch(comfy.server, name, "json")))
    comfy.page.wait_for_function("() => app.rootGraph.nodes.length > 10")


def run(comfy) -> dict[str, Any]:
    """Queue what is open; what the server told the page."""
    comfy.js(WATCH)
    comfy.js("() => void app.queuePrompt(0)")
    comfy.page.wait_for_function("() => told.end", timeout=RUN_MS)
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
    open_example(comfy, name)
    nodes = json.loads(fetch(comfy.server, name, "json"))["nodes"]
    assert sorted(comfy.js("() => app.rootGraph.nodes.map((node) => node.type)")) == sorted(n["type"] for n in nodes)
    missing = (
        "() => app.rootGraph.nodes.map((node) => node.type).filter((type) => !LiteGraph.registered_node_types[type])"
    )
    assert comfy.js(missing) == []
    linked = (
        "() => app.rootGraph.nodes.flatMap((node) => node.inputs.map((input) => input.link)).filter(Boolean).length"
    )
    assert comfy.js(linked) == sum(slot.get("link") is not None for n in nodes for slot in n.get("inputs", ()))


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_node_lies_on_another(comfy, name):
    open_example(comfy, name)
    boxes = comfy.js(
        """() => app.rootGraph.nodes.map((node) => {
            const [x, y] = node.pos, [width, height] = node.size;
            return [node.title, x, y - LiteGraph.NODE_TITLE_HEIGHT, x + width, y + height];
        })"""
    )
    overlaps = [
        (a, b)
        for i, (a, left, top, right, bottom) in enumerate(boxes)
        for b, left_b, top_b, right_b, bottom_b in boxes[:i]
        if left < right_b and left_b < right and top < bottom_b and top_b < bottom
    ]
    assert overlaps == []


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name[0] in RUN])
def test_it_runs_to_a_video(page_of, name):
    av = pytest.importorskip("av")
    expected, frames, steps = RUN[name[0]]
    comfy = page_of("canvas")
    comfy.empty()
    open_example(comfy, name)
    if steps:
        comfy.js(SET_STEPS, steps)
    told = run(comfy)
    assert any(re.fullmatch(expected, report["text"]) for report in told["reports"]), told["reports"]
    assert all(report["good"] for report in told["reports"])
    (video,) = (file for file in files(comfy, told) if file.suffix == ".mp4")
    with av.open(video) as file:
        assert sum(1 for _ in file.decode(video=0)) == frames
    assert comfy.complaints == []

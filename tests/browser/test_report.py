"""What a node did in a run is written above it, and nowhere in the workflow."""

from __future__ import annotations

from io import BytesIO

import pytest
from comfyui import graphs
from PIL import Image

TEXT = "replaced 240 of 240 calls"
GREEN, AMBER = (42, 122, 83), (179, 100, 12)


@pytest.fixture
def live(comfy) -> int:
    return comfy.add("VDiT_LiveTransfer")


def report(comfy, node, text=TEXT, good=True, layers=None):
    comfy.send("vdit.report", {"node": str(node), "text": text, "good": good, "layers": layers})


def color_above(comfy, node) -> tuple[int, int, int]:
    """What the user sees a little above the node's title, at its left."""
    comfy.draw()
    x, y = comfy.js(
        """(id) => {
            const [x, y] = app.canvas.convertOffsetToCanvas(vdit.node(id).pos);
            const { left, top } = app.canvas.canvas.getBoundingClientRect();
            return [left + x + 4, top + y - LiteGraph.NODE_TITLE_HEIGHT - 12];
        }""",
        node,
    )
    picture = comfy.page.screenshot(clip={"x": x, "y": y, "width": 1, "height": 1})
    return Image.open(BytesIO(picture)).convert("RGB").getpixel((0, 0))


def test_a_report_is_seen_above_its_node(comfy, live):
    other = comfy.add("VDiT_LiveTransfer", x=450)
    before = color_above(comfy, live)
    report(comfy, live)
    assert f"✓ {TEXT}" in comfy.written()
    assert color_above(comfy, live) == GREEN != before
    assert color_above(comfy, other) == before


def test_a_bad_report_is_amber(comfy, live):
    report(comfy, live, "stock model: skipped", good=False)
    assert "! stock model: skipped" in comfy.written()
    assert color_above(comfy, live) == AMBER


def test_a_long_report_is_written_in_lines(comfy, live):
    report(comfy, live, " ".join(["word"] * 40))
    lines = [text for text in comfy.written() if "word" in text]
    assert len(lines) > 1
    assert " ".join(lines).count("word") == 40


def test_a_new_run_of_the_node_clears_it(comfy, live):
    report(comfy, live)
    comfy.send("execution_start", {"prompt_id": "p"})
    assert f"✓ {TEXT}" in comfy.written(), "not before it is known that the node runs again"
    comfy.send("executing", str(live))
    assert f"✓ {TEXT}" not in comfy.written()


def test_a_node_that_did_not_run_again_keeps_it(comfy, live):
    report(comfy, live)
    comfy.send("execution_start", {"prompt_id": "p"})
    comfy.send("executing", "999")
    comfy.send("execution_success", {"prompt_id": "p"})
    assert color_above(comfy, live) == GREEN


@pytest.mark.parametrize("end", ["execution_error", "execution_interrupted"])
def test_a_run_that_breaks_off_leaves_no_old_report(comfy, live, end):
    other = comfy.add("VDiT_LiveTransfer", x=450)
    report(comfy, live)
    comfy.send("execution_start", {"prompt_id": "p"})
    report(comfy, other, "replaced 3 of 3 calls")
    comfy.send(end, {"prompt_id": "p", "node_id": "1", "traceback": []})
    assert "✓ replaced 3 of 3 calls" in comfy.written()
    assert f"✓ {TEXT}" not in comfy.written()


def test_it_is_not_saved(comfy, live):
    comfy.draw()
    before = comfy.workflow()["nodes"]
    report(comfy, live)
    comfy.draw()
    assert comfy.workflow()["nodes"] == before


def test_an_undo_does_not_remove_it(comfy, live):
    comfy.js("vdit.changed()")
    comfy.enter(live, "strength", 0.5)
    report(comfy, live)
    comfy.js("() => app.extensionManager.workflow.activeWorkflow.changeTracker.undo()")
    comfy.wait_for_value(live, 1.0, "strength")
    assert f"✓ {TEXT}" in comfy.written()


def test_it_belongs_to_its_workflow(comfy, live):
    report(comfy, live)
    comfy.empty()
    assert comfy.add("VDiT_LiveTransfer") == live
    assert f"✓ {TEXT}" not in comfy.written()


def test_a_report_for_no_node_of_ours_is_dropped(comfy, live):
    sampler = comfy.add("KSampler", x=450)
    for node in (sampler, 999, f"{live}:3", "x"):
        report(comfy, node)
    assert f"✓ {TEXT}" not in comfy.written()


def test_in_a_subgraph(comfy, live):
    host, inside = comfy.js(
        """(id) => {
            const { subgraph, node } = app.canvas.graph.convertToSubgraph(new Set([vdit.node(id)]));
            return [node.id, subgraph.nodes[0].id];
        }""",
        live,
    )
    comfy.draw()
    running = f"{host}:{inside}"
    report(comfy, running)
    assert f"✓ {TEXT}" not in comfy.written(), "the subgraph's node does not speak for what went well inside"
    comfy.js("(id) => vdit.enter(vdit.node(id))", host)
    assert f"✓ {TEXT}" in comfy.written()
    comfy.js("app.canvas.setGraph(app.rootGraph)")
    report(comfy, running, "replaced 3 of 240 calls", good=False)
    assert "! replaced 3 of 240 calls" in comfy.written(), "but says what went wrong"


def test_a_real_run(comfy):
    # The page that comes second must not find the first one's run in the server's cache.
    comfy.js("(prompt) => app.loadApiJson(prompt, 'live')", graphs.live(steps=2, seed=int(comfy.vue)))
    comfy.page.wait_for_function("() => app.rootGraph.nodes.some((node) => node.type === 'VDiT_LiveTransfer')")
    comfy.js(
        """() => {
            app.canvas.centerOnNode(app.rootGraph.nodes.find((node) => node.type === "VDiT_LiveTransfer"));
            app.queuePrompt(0);
        }"""
    )
    comfy.page.wait_for_function(
        """() => {
            window.written = [];
            app.canvas.draw(true, true);
            return window.written.some((text) => /^✓ replaced (\\d+) of \\1 calls$/.test(text));
        }""",
        timeout=120_000,
    )

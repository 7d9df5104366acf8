"""The panel of the Sink Inspector before, between and after runs, and what a workflow does to it."""

from __future__ import annotations

import re
import shutil

from .sink_panel import EMPTY, HEADS, LAYERS, box, cell, make, panel, ran, readout, title

GONE = "The files of this run are gone: run again."


def test_before_a_run_it_says_what_to_do(comfy, inspector):
    comfy.expect(panel(comfy, inspector).get_by_text(EMPTY)).to_be_visible()
    comfy.expect(panel(comfy, inspector).get_by_role("gridcell")).to_have_count(0)


def test_another_run_is_looked_at_in_the_same_place(comfy, inspector, told):
    cell(comfy, inspector, 2, 1).click()
    panel(comfy, inspector).get_by_role("slider", name="step").press("End")
    title(comfy, inspector, re.compile("layer 2 · head 1"))
    ran(comfy, inspector, make(comfy))
    title(comfy, inspector, re.compile("layer 2 · head 1"))
    comfy.expect(panel(comfy, inspector).get_by_text("3 · noise 0.25")).to_be_visible()
    ran(comfy, inspector, make(comfy, layers=2))
    title(comfy, inspector, re.compile("layer 1 · head 0")), "there is no layer 2"


def test_pieces_that_are_gone_ask_for_another_run(comfy, inspector, told):
    """ComfyUI empties its temporary folder when it starts."""
    title(comfy, inspector, re.compile("layer 8 · head 0"))
    readout(comfy, inspector, re.compile("strongest: token 7"))
    shutil.rmtree(comfy.server.base / "temp" / told["folder"])
    cell(comfy, inspector, 1, 1).click()
    comfy.expect(panel(comfy, inspector).get_by_text(GONE)).to_be_visible()
    comfy.expect(box(comfy, inspector, 0)).to_be_hidden()
    comfy.expect(cell(comfy, inspector, 8, 0)).to_have_text(re.compile(r"\d+"))
    cell(comfy, inspector, 8, 0).click()
    comfy.expect(panel(comfy, inspector).get_by_text(GONE)).to_be_hidden()
    comfy.expect(box(comfy, inspector, 0)).to_be_visible()
    ran(comfy, inspector, make(comfy))
    cell(comfy, inspector, 1, 1).click()
    readout(comfy, inspector, re.compile("^strongest: token"))
    comfy.expect(panel(comfy, inspector).get_by_text(GONE)).to_be_hidden()


def test_nothing_is_asked_for_where_all_is_gone(comfy, inspector):
    """Each missing picture would be an error in the browser's log."""
    told = make(comfy)
    shutil.rmtree(comfy.server.base / "temp" / told["folder"])
    ran(comfy, inspector, told)
    comfy.expect(panel(comfy, inspector).get_by_text(GONE)).to_be_visible()
    comfy.expect(panel(comfy, inspector).locator("img")).to_have_count(0)


def test_the_workflow_keeps_nothing_of_it(comfy, inspector, told):
    (saved,) = comfy.workflow()["nodes"]
    assert saved["widgets_values"] == [16.0, 0.25, -1, -1]
    assert told["folder"] not in str(comfy.workflow())
    prompt = comfy.js("async () => (await app.graphToPrompt()).output")
    assert "panel" not in prompt[str(inspector)]["inputs"]


def test_a_reloaded_workflow_has_nothing_to_show(comfy, inspector, told):
    workflow = comfy.workflow()
    comfy.empty()
    comfy.load(workflow)
    comfy.expect(panel(comfy, inspector).get_by_text(EMPTY)).to_be_visible()


def test_an_undo_leaves_it(comfy, inspector, told):
    comfy.js("vdit.changed()")
    cell(comfy, inspector, 2, 1).click()
    comfy.enter(inspector, "ratio", 5.0)
    comfy.js("() => app.extensionManager.workflow.activeWorkflow.changeTracker.undo()")
    comfy.wait_for_value(inspector, 16.0, "ratio")
    comfy.draw()
    comfy.expect(panel(comfy, inspector).get_by_role("gridcell")).to_have_count(LAYERS * HEADS)
    title(comfy, inspector, re.compile("layer 2 · head 1"))
    readout(comfy, inspector, re.compile("^strongest: token"))
    cell(comfy, inspector, 5, 1).click()
    title(comfy, inspector, re.compile("layer 5 · head 1"))


def test_a_bypassed_node_still_shows_it(comfy, inspector, told):
    comfy.js("(id) => { vdit.node(id).mode = 4; vdit.changed(); }", inspector)
    comfy.draw()
    cell(comfy, inspector, 5, 1).click()
    title(comfy, inspector, re.compile("layer 5 · head 1"))


def test_two_are_apart(comfy, inspector, told):
    comfy.js("() => { app.canvas.ds.scale = 0.6; }")
    other = comfy.add("VDiT_SinkInspector", x=800, y=-150)
    comfy.expect(panel(comfy, other).get_by_text(EMPTY)).to_be_visible()
    ran(comfy, other, make(comfy, layers=5))
    comfy.expect(panel(comfy, other).get_by_role("gridcell")).to_have_count(5 * HEADS)
    comfy.expect(panel(comfy, inspector).get_by_role("gridcell")).to_have_count(LAYERS * HEADS)


def test_in_a_subgraph(comfy, inspector):
    host, inside = comfy.js(
        """(id) => {
            const { subgraph, node } = app.canvas.graph.convertToSubgraph(new Set([vdit.node(id)]));
            return [node.id, subgraph.nodes[0].id];
        }""",
        inspector,
    )
    comfy.draw()
    ran(comfy, f"{host}:{inside}", make(comfy))
    comfy.js("(id) => vdit.enter(vdit.node(id))", host)
    comfy.draw()
    comfy.expect(panel(comfy, inside).get_by_role("gridcell")).to_have_count(LAYERS * HEADS)
    readout(comfy, inside, re.compile("^strongest: token 7"))
    comfy.js("app.canvas.setGraph(app.rootGraph)")

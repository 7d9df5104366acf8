"""What a node did in a run is written above it, and nowhere in the workflow."""

from __future__ import annotations

import uuid

import pytest
from comfyui import graphs

TEXT = "replaced 240 of 240 calls"
GREEN, AMBER, RED, GREY = (42, 122, 83), (179, 100, 12), (176, 42, 55), (92, 99, 112)


@pytest.fixture
def live(comfy) -> int:
    return comfy.add("VDiT_LiveTransfer")


def here(comfy) -> str:
    """The id of the open workflow."""
    return comfy.js("() => app.rootGraph.id")


def report(comfy, node, text=TEXT, level="done", layers=None, workflow=None, prompt="first", by=None):
    """As nodes/outcomes.py sends it."""
    told = {"node": str(node), "text": text, "level": level, "layers": layers, "by": str(by or node)}
    comfy.send("vdit.report", told | {"workflow": workflow or here(comfy), "prompt": prompt})


def queue(comfy, prompt) -> None:
    """Queue the open workflow; the server's answer, with the prompt's id, is made up."""
    comfy.page.route("**/api/prompt", lambda route: route.fulfill(json={"prompt_id": prompt, "node_errors": {}}))
    comfy.js("async () => void await app.api.queuePrompt(0, await app.graphToPrompt())")
    comfy.page.unroute("**/api/prompt")


def start(comfy) -> str:
    """A run of the open workflow begins; its prompt's id."""
    prompt = uuid.uuid4().hex
    queue(comfy, prompt)
    comfy.send("execution_start", {"prompt_id": prompt})
    return prompt


def test_a_report_is_seen_above_its_node(comfy, live):
    other = comfy.add("VDiT_LiveTransfer", x=450)
    before = comfy.color_above(live)
    report(comfy, live)
    assert f"✓ {TEXT}" in comfy.written()
    assert comfy.color_above(live) == GREEN != before
    assert comfy.color_above(other) == before


@pytest.mark.parametrize(
    ("level", "mark", "color"),
    [("idle", "–", GREY), ("done", "✓", GREEN), ("partly", "!", AMBER), ("failed", "✕", RED)],
)
def test_each_level_has_its_colour(comfy, live, level, mark, color):
    report(comfy, live, "some text", level)
    assert f"{mark} some text" in comfy.written()
    assert comfy.color_above(live) == color


def test_a_long_report_is_written_in_lines(comfy, live):
    report(comfy, live, " ".join(["word"] * 40))
    lines = [text for text in comfy.written() if "word" in text]
    assert len(lines) > 1
    assert " ".join(lines).count("word") == 40


def test_a_new_run_of_the_node_clears_it(comfy, live):
    report(comfy, live)
    start(comfy)
    assert f"✓ {TEXT}" in comfy.written(), "not before it is known that the node runs again"
    comfy.send("executing", str(live))
    assert f"✓ {TEXT}" not in comfy.written()


def test_it_is_cleared_though_the_answer_comes_late(comfy, live):
    """A node may run before the page knows the id of what it queued."""
    report(comfy, live)
    prompt = uuid.uuid4().hex
    comfy.send("execution_start", {"prompt_id": prompt})
    comfy.send("executing", str(live))
    queue(comfy, prompt)
    assert f"✓ {TEXT}" not in comfy.written()


def test_a_node_that_did_not_run_again_keeps_it(comfy, live):
    report(comfy, live)
    prompt = start(comfy)
    comfy.send("executing", "999")
    assert comfy.color_above(live) != GREEN, "it is dimmed while the run goes on"
    comfy.send("execution_success", {"prompt_id": prompt})
    assert comfy.color_above(live) == GREEN


@pytest.mark.parametrize("end", ["execution_error", "execution_interrupted"])
def test_a_run_that_breaks_off_leaves_no_old_report(comfy, live, end):
    other = comfy.add("VDiT_LiveTransfer", x=450)
    report(comfy, live)
    prompt = start(comfy)
    report(comfy, other, "replaced 3 of 3 calls", prompt=prompt)
    comfy.send(end, {"prompt_id": prompt, "node_id": "1", "traceback": []})
    assert "✓ replaced 3 of 3 calls" in comfy.written()
    assert f"✓ {TEXT}" not in comfy.written()


def test_the_workflow_keeps_the_number_of_layers_and_nothing_else(comfy, live):
    mask = comfy.add("VDiT_LayerMask", x=-350)
    comfy.connect(mask, "LAYER_MASK", live, "LAYER_MASK")
    comfy.draw()
    before = comfy.workflow()["nodes"]
    report(comfy, live, layers=9)
    comfy.draw()
    after = comfy.workflow()["nodes"]
    for node in before:
        node["properties"]["vdit_layers"] = 9
    for node in (*before, *after):
        del node["size"]  # fewer layers, fewer cells
    assert after == before


def test_an_undo_does_not_remove_it(comfy, live):
    comfy.js("vdit.changed()")
    comfy.enter(live, "strength", 0.5)
    report(comfy, live)
    comfy.js("() => app.extensionManager.workflow.activeWorkflow.changeTracker.undo()")
    comfy.wait_for_value(live, 1.0, "strength")
    assert f"✓ {TEXT}" in comfy.written()


def test_it_belongs_to_its_workflow(comfy, live):
    """Another may be open when it comes, with a node of the same number."""
    first = comfy.workflow()
    comfy.empty()
    assert comfy.add("VDiT_LiveTransfer") == live
    report(comfy, live, workflow=first["id"], layers=9)
    assert f"✓ {TEXT}" not in comfy.written()
    assert "vdit_layers" not in comfy.workflow()["nodes"][0]["properties"]
    comfy.load(first)
    assert f"✓ {TEXT}" in comfy.written()
    assert comfy.workflow()["nodes"][0]["properties"]["vdit_layers"] == 9


@pytest.mark.parametrize("end", ["execution_success", "execution_error", "execution_interrupted"])
def test_a_run_of_another_workflow_leaves_it_alone(comfy, live, end):
    report(comfy, live)
    first = comfy.workflow()
    comfy.empty()
    comfy.add("VDiT_LiveTransfer")
    prompt = start(comfy)
    comfy.send("executing", str(live))
    comfy.load(first)
    assert comfy.color_above(live) == GREEN
    comfy.send(end, {"prompt_id": prompt, "node_id": "1", "traceback": []})
    assert comfy.color_above(live) == GREEN


def test_a_report_of_no_known_workflow_is_dropped(comfy, live):
    comfy.send("vdit.report", {"node": str(live), "text": TEXT, "good": True, "workflow": None, "prompt": "p"})
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
    report(comfy, running, "replaced 3 of 240 calls", level="partly")
    assert "! replaced 3 of 240 calls" in comfy.written(), "but says what went wrong"


def queued(comfy, prompt: str, **nodes: dict) -> None:
    """A run of the open workflow begins whose graph is this one, whatever is drawn."""
    graph = {"output": nodes, "workflow": {"id": here(comfy)}}
    comfy.page.route("**/api/prompt", lambda route: route.fulfill(json={"prompt_id": prompt, "node_errors": {}}))
    comfy.js("async (graph) => void await app.api.queuePrompt(0, graph)", graph)
    comfy.page.unroute("**/api/prompt")
    comfy.send("execution_start", {"prompt_id": prompt})


def sampled(live, **settings) -> dict:
    """A graph in which a sampler, node 900, takes the model of a Live Transfer."""
    nodes = {str(live): graphs.node("VDiT_LiveTransfer"), "900": graphs.node("KSampler", model=[str(live), 0])}
    nodes["900"]["inputs"] |= settings
    return nodes


def ran_well(comfy, prompt) -> None:
    comfy.send("execution_success", {"prompt_id": prompt})


def test_it_stays_while_everything_up_to_the_sampler_is_the_same(comfy, live):
    queued(comfy, "one", **sampled(live, seed=1))
    report(comfy, live, prompt="one", by=900)
    ran_well(comfy, "one")
    queued(comfy, "two", **sampled(live, seed=1), **{"901": graphs.node("SaveLatent", samples=["900", 0])})
    ran_well(comfy, "two")
    assert f"✓ {TEXT}" in comfy.written()


@pytest.mark.parametrize("why", ["another seed", "another model", "no sampler", "not in the prompt"])
def test_it_goes_with_what_it_tells_of(comfy, live, why):
    """Though the node itself is in the cache, and the sampler may be."""
    queued(comfy, "one", **sampled(live, seed=1))
    report(comfy, live, prompt="one", by=900)
    ran_well(comfy, "one")
    graph = sampled(live, seed=2 if why == "another seed" else 1)
    if why == "another model":
        graph["900"]["inputs"]["model"] = ["902", 0]
        graph["902"] = graphs.node("UNETLoader")
    elif why == "no sampler":
        del graph["900"]
    elif why == "not in the prompt":
        graph = {"902": graphs.node("UNETLoader")}
    queued(comfy, "two", **graph)
    ran_well(comfy, "two")
    assert f"✓ {TEXT}" not in comfy.written()


def test_it_goes_when_the_sampler_runs_anew(comfy, live):
    queued(comfy, "one", **sampled(live, seed=1))
    report(comfy, live, prompt="one", by=900)
    ran_well(comfy, "one")
    queued(comfy, "two", **sampled(live, seed=1))
    comfy.send("executing", "900")
    assert f"✓ {TEXT}" not in comfy.written()


def test_a_real_run(comfy):
    """The server names the workflow as the page does, so what it sends is written here."""
    # The page that comes second must not find the first one's run in the server's cache.
    comfy.js("(prompt) => app.loadApiJson(prompt, 'live')", graphs.live(steps=2, seed=int(comfy.vue)))
    comfy.page.wait_for_function("() => app.rootGraph.nodes.some((node) => node.type === 'VDiT_LiveTransfer')")
    comfy.js(
        """() => {
            app.rootGraph.id = crypto.randomUUID();  // as every workflow has that was opened from a file
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

"""No pill is a false or stale green: each editor beside nodes of other packs, in a real page with a real server."""

from __future__ import annotations

import pytest
from comfyui import graphs

from .test_report import AMBER, GREEN, GREY, RED

ACTIVE, BYPASSED = 0, 4


@pytest.fixture(scope="module")
def seeds():
    """Another seed for each workflow: what the server has in its cache is of this one."""
    return iter(range(9000, 10_000))


def open_graph(comfy, graph: graphs.Graph) -> None:
    comfy.js("(prompt) => app.loadApiJson(prompt, 'outcomes')", graph)
    comfy.page.wait_for_function("() => app.rootGraph.nodes.some((node) => node.type === 'KSampler')")
    comfy.js(
        """() => {
            app.rootGraph.id = crypto.randomUUID();  // as every workflow has that was opened from a file
            for (const { widgets } of app.rootGraph.nodes)
                for (const widget of widgets ?? [])
                    if (widget.name === "control_after_generate") widget.value = "fixed";
        }"""
    )


def set_mode(comfy, kind: str, mode: int) -> None:
    comfy.js("([kind, mode]) => { app.rootGraph.nodes.find((node) => node.type === kind).mode = mode; }", [kind, mode])


def run(comfy) -> None:
    """Queue the workflow and wait until it has ended."""
    comfy.js(
        """() => {
            window.ended = new Promise((done) => {
                for (const end of ["execution_success", "execution_error", "execution_interrupted"])
                    app.api.addEventListener(end, () => done(end), { once: true });
            });
            app.queuePrompt(0);
        }"""
    )
    assert comfy.js("() => window.ended") == "execution_success"


def seen(comfy, kind: str) -> str | None:
    """Which pill is seen over the node of a kind."""
    node = comfy.js(
        """(kind) => {
            const node = app.rootGraph.nodes.find((node) => node.type === kind);
            app.canvas.ds.scale = 1;
            app.canvas.centerOnNode(node);
            return node.id;
        }""",
        kind,
    )
    looks = {GREEN: "green", AMBER: "amber", RED: "red", GREY: "grey"}
    found = (looks.get(comfy.color_above(node, lift)) for lift in (12, 34))  # the higher one if badges are in the way
    return next(filter(None, found), None)


KINDS = {
    "transfer": "VDiT_TransferAttention",
    "live": "VDiT_LiveTransfer",
    "sparse": "VDiT_SparseAttention",
    "sink control": "VDiT_SinkControl",
}


@pytest.mark.parametrize("comfy", ["canvas"], indirect=True)  # pills are drawn on the canvas by both renderers
@pytest.mark.parametrize("tenant", graphs.TENANTS)
@pytest.mark.parametrize("editor", graphs.EDITORS)
def test_a_pill_says_what_happened_in_the_last_run(comfy, seeds, editor, tenant):
    """First run, cached, requeued; the other node active, bypassed and active again; ours cut off in the end."""
    between, comes_by = graphs.TENANTS[tenant]
    kind, other = KINDS[editor], between["class_type"]
    graph = graphs.edited(editor, between, seed=next(seeds))
    open_graph(comfy, graph)
    expected = "green" if comes_by else "red"

    run(comfy)
    assert seen(comfy, kind) == expected
    run(comfy)  # everything is in the cache
    assert seen(comfy, kind) == expected
    set_mode(comfy, other, BYPASSED)
    run(comfy)  # the editor is in the cache, the sampler is not
    assert seen(comfy, kind) == "green"
    set_mode(comfy, other, ACTIVE)
    run(comfy)
    assert seen(comfy, kind) == expected
    if editor != "live":  # the sampler needs its conditioning and latent
        set_mode(comfy, kind, BYPASSED)
        run(comfy)
        assert seen(comfy, kind) is None, "it is off: nothing is said of it"

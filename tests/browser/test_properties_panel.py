"""ComfyUI's properties panel: it leaves the nodes' own elements where they are, and has no row for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Locator

#: The nodes with an element of ours: their title, what the element's widget is called, the rows that the panel has.
ELEMENTS = {
    "VDiT_LayerMask": ("Layer Mask", "cells", ["mask"]),
    "VDiT_HeadMask": ("Head Mask", "cells", ["mask"]),
    "VDiT_SinkInspector": ("Sink Inspector", "panel", ["ratio", "layer", "head"]),
}
#: What ComfyUI writes into the console when the server refuses a prompt.
REFUSED = "PromptExecutionError"
VUE, OPEN = "Comfy.VueNodes.Enabled", "Comfy.RightSidePanel.IsOpen"


def set_(comfy, setting: str, value: Any) -> None:
    comfy.js("([id, value]) => app.extensionManager.setting.set(id, value)", [setting, value])


@pytest.fixture
def open_panel(comfy) -> Iterator[Callable[[str], Locator]]:
    """Opens the panel, which shows the inputs of the selected node; title: what stands over them then."""

    def opened(title: str = "Workflow Overview") -> Locator:
        set_(comfy, OPEN, True)
        panel = comfy.page.get_by_test_id("properties-panel")
        comfy.expect(panel.locator("h3")).to_have_text(title)
        panel.get_by_test_id("panel-tab-parameters").click()
        return panel

    yield opened
    set_(comfy, OPEN, False)
    comfy.expect(comfy.page.get_by_test_id("properties-panel")).to_have_count(0)


def select(comfy, node: int) -> None:
    comfy.js("(id) => app.canvas.selectNode(vdit.node(id))", node)


def labels(panel: Locator) -> list[str]:
    """The names of the panel's rows."""
    return panel.locator(".widget-item > :first-child > :first-child").all_inner_texts()


def box(comfy, node: int, name: str) -> list[float]:
    """Where a node's own element is on the page."""
    comfy.draw()
    return comfy.js(
        """([id, name]) => {
            const { x, y, width, height } = vdit.widget(id, name).element.getBoundingClientRect();
            return [x, y, width, height];
        }""",
        [node, name],
    )


@pytest.mark.parametrize("kind", ELEMENTS)
def test_a_nodes_own_element_stays_where_it_is(comfy, open_panel, kind):
    title, name, _ = ELEMENTS[kind]
    node = comfy.add(kind)
    select(comfy, node)
    before = box(comfy, node, name)
    open_panel(title)
    assert box(comfy, node, name) == before


@pytest.mark.parametrize("kind", ELEMENTS)
def test_a_nodes_own_element_has_no_row(comfy, open_panel, kind):
    title, _, rows = ELEMENTS[kind]
    select(comfy, comfy.add(kind))
    panel = open_panel(title)
    comfy.expect(panel.locator(".widget-item")).to_have_count(len(rows))
    assert labels(panel) == rows


@contextmanager
def other_renderer(comfy) -> Iterator[None]:
    vue = comfy.vue
    draw_with(comfy, not vue)
    try:
        yield
    finally:
        draw_with(comfy, vue)


def draw_with(comfy, vue: bool) -> None:
    set_(comfy, VUE, vue)
    comfy.page.wait_for_function("(vue) => LiteGraph.vueNodesMode === vue", arg=vue)
    comfy.draw()


@pytest.mark.parametrize("kind", ELEMENTS)
def test_an_element_is_as_wide_as_its_node_in_the_other_renderer_too(comfy, open_panel, kind):
    title, name, _ = ELEMENTS[kind]
    node = comfy.add(kind)
    select(comfy, node)
    open_panel(title)
    comfy.draw()
    with other_renderer(comfy):
        comfy.page.wait_for_function(
            "([id, name]) => !vdit.widget(id, name).element.closest('.dom-widget') === LiteGraph.vueNodesMode",
            arg=[node, name],
        )
        _, _, width, _ = box(comfy, node, name)
        assert width > comfy.js("(id) => vdit.node(id).size[0]", node) - 30


def test_a_drag_after_the_panel_has_opened_paints_the_cells_under_the_mouse(comfy, open_panel):
    mask = comfy.add("VDiT_LayerMask", mask="none", layers=30)
    places = {layer: comfy.cell(mask, layer).bounding_box() for layer in (3, 7, 9, 29)}
    middles = {layer: (at["x"] + at["width"] / 2, at["y"] + at["height"] / 2) for layer, at in places.items()}
    panel, mouse = open_panel(), comfy.page.mouse
    mouse.click(*middles[3])  # on the canvas this selects the node
    comfy.wait_for_value(mask, "3")
    select(comfy, mask)
    comfy.expect(panel.locator("h3")).to_have_text("Layer Mask")
    comfy.draw()
    mouse.move(*middles[7])
    mouse.down()
    mouse.move(*middles[9])
    mouse.move(*middles[29])
    mouse.up()
    comfy.wait_for_value(mask, "3, 7-9, 19, 29")


def test_a_subgraph_has_no_row_for_the_cells_in_it(comfy, open_panel):
    mask = comfy.add("VDiT_LayerMask", mask="none", layers=30)
    host = comfy.js(
        "(id) => app.canvas.graph.convertToSubgraph(new Set([vdit.node(id)])).node.id",
        mask,
    )
    select(comfy, host)
    panel = open_panel("New Subgraph")
    panel.get_by_text("advanced inputs").click()
    rows = panel.locator(".widget-item")
    comfy.expect(rows.first).to_be_visible()
    assert labels(panel) == ["mask", "model's layers"]
    comfy.js("(id) => vdit.enter(vdit.node(id))", host)
    comfy.draw()
    inside = comfy.of_type("VDiT_LayerMask")[0]
    comfy.cell(inside, 4).click()
    comfy.wait_for_value(inside, "4")


def test_cells_are_there_when_a_workflow_is_loaded_from_within_a_subgraph(comfy):
    mask = comfy.add("VDiT_LayerMask", mask="none", layers=30)
    workflow = comfy.workflow()
    comfy.js("(id) => vdit.enter(app.canvas.graph.convertToSubgraph(new Set([vdit.node(id)])).node)", mask)
    comfy.draw()
    comfy.load(workflow)
    comfy.cell(mask, 4).click()
    comfy.wait_for_value(mask, "4")


def test_cells_that_were_made_a_favorite_keep_their_width(comfy, open_panel):
    mask = comfy.add("VDiT_LayerMask", mask="none", layers=30)
    before = box(comfy, mask, "cells")[2]
    workflow = comfy.workflow()
    workflow["extra"] = {"favoritedWidgets": {"favorites": [{"nodeLocatorId": str(mask), "widgetName": "cells"}]}}
    comfy.load(workflow)
    panel = open_panel()
    comfy.expect(panel.locator(".widget-item")).to_have_count(1)
    comfy.js("app.canvas.ds.scale = 1")  # loading had brought the nodes into view
    assert box(comfy, mask, "cells")[2] == before


@pytest.mark.parametrize(("kind", "name"), [("VDiT_LayerMask", "Layer Mask"), ("VDiT_HeadMask", "Head Mask")])
def test_a_bad_text_is_reported_once_and_at_its_field(comfy, open_panel, kind, name):
    mask = comfy.add(kind, mask="3-999x", layers=30)
    comfy.expect(comfy.cells(mask).get_by_role("status")).to_have_text("cannot read “3-999x”")
    preview = comfy.add("PreviewAny", y=400)
    comfy.js("([from, to]) => vdit.node(from).connect(0, vdit.node(to), 'source')", [mask, preview])
    comfy.js("() => app.queuePrompt(0)")
    panel = open_panel()
    panel.get_by_test_id("panel-tab-errors").click()
    comfy.expect(panel.get_by_text(f"{name} - mask")).to_have_count(1)
    comfy.expect(panel.get_by_text(f"{name} - ")).to_have_count(1)
    flagged = comfy.js("(id) => vdit.node(id).inputs.filter((input) => input.hasErrors).map(({ name }) => name)", mask)
    assert flagged == ["mask"]
    comfy.complaints[:] = [text for text in comfy.complaints if REFUSED not in text]


def test_what_only_execution_can_find_is_reported_by_it(comfy):
    mask = comfy.add("VDiT_LayerMask", mask="30", layers=30)
    comfy.expect(comfy.cells(mask).get_by_role("status")).to_have_text("layer 30 is out of range: 0 to 29")
    preview = comfy.add("PreviewAny", y=400)
    comfy.js("([from, to]) => vdit.node(from).connect(0, vdit.node(to), 'source')", [mask, preview])
    comfy.js("""() => {
        window.failed = null;
        app.api.addEventListener("execution_error", ({ detail }) => { window.failed = detail; }, { once: true });
        app.queuePrompt(0);
    }""")
    error = comfy.page.wait_for_function("() => window.failed", timeout=15000).json_value()
    assert error["node_id"] == str(mask)
    assert error["exception_message"].startswith("Layer 30 in '30' is out of range: there are 30 layers, 0 to 29")

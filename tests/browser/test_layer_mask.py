"""The cells of Layer Mask and its text: what is done to one is seen in the other."""

from __future__ import annotations

import pytest

LAYERS = 30

#: One notch of the wheel up. Several in one script come faster after each other than a loaded machine can send them.
TURN = """(target) => target.dispatchEvent(
    new WheelEvent("wheel", { deltaY: -100, bubbles: true, cancelable: true, clientX: 400, clientY: 300 }),
)"""


@pytest.fixture
def mask(comfy) -> int:
    return comfy.add("VDiT_LayerMask", mask="none", layers=LAYERS)


def on(*layers: int) -> list[float]:
    return [float(layer in layers) for layer in range(LAYERS)]


def test_there_is_a_cell_for_every_layer(comfy, mask):
    comfy.expect(comfy.cells(mask).locator(".cell")).to_have_count(LAYERS)
    comfy.enter(mask, "layers", 40)
    comfy.expect(comfy.cells(mask).locator(".cell")).to_have_count(40)
    comfy.draw()
    comfy.expect(comfy.cell(mask, 39)).to_be_in_viewport(ratio=1)


def test_a_click_switches_a_layer_on_and_off(comfy, mask):
    comfy.cell(mask, 7).click()
    comfy.wait_for_value(mask, "7")
    comfy.wait_for_strengths(mask, on(7))
    comfy.cell(mask, 12).click()
    comfy.wait_for_value(mask, "7, 12")
    comfy.cell(mask, 7).click()
    comfy.wait_for_value(mask, "12")


def drag(comfy, mask, start, *stops):
    mouse = comfy.page.mouse
    for index, layer in enumerate((start, *stops)):
        box = comfy.cell(mask, layer).bounding_box()
        mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        if index == 0:
            mouse.down()
    mouse.up()


def test_a_drag_paints_what_the_first_cell_became(comfy, mask):
    drag(comfy, mask, 3, 8)
    comfy.wait_for_value(mask, "3-8")
    drag(comfy, mask, 4, 6, 16)
    comfy.wait_for_value(mask, "3, 7-8")
    comfy.wait_for_strengths(mask, on(3, 7, 8))


def test_a_drag_does_not_move_the_node(comfy, mask):
    before = comfy.js("(id) => [...vdit.node(id).pos]", mask)
    drag(comfy, mask, 0, 25)
    assert comfy.js("(id) => [...vdit.node(id).pos]", mask) == before


def test_shift_click_continues_to_here(comfy, mask):
    comfy.cell(mask, 2).click()
    comfy.cell(mask, 11).click(modifiers=["Shift"])
    comfy.wait_for_value(mask, "2-11")


def test_double_click_leaves_one_layer_alone_and_then_all(comfy, mask):
    comfy.enter(mask, "mask", "0-9")
    comfy.cell(mask, 20).dblclick()
    comfy.wait_for_value(mask, "20")
    comfy.cell(mask, 20).dblclick()
    comfy.wait_for_value(mask, "all")


@pytest.fixture
def at_rest(comfy):
    """What was turned before is another turn: it ends with a pause."""
    comfy.js("() => new Promise((done) => setTimeout(done, 400))")


@pytest.mark.usefixtures("at_rest")
def test_the_wheel_changes_a_strength_and_not_the_view(comfy, mask):
    view = comfy.js("() => [app.canvas.ds.scale, ...app.canvas.ds.offset]")
    comfy.cell(mask, 5).hover()
    comfy.page.mouse.wheel(0, -100)
    comfy.wait_for_value(mask, "5:0.1")
    comfy.page.mouse.wheel(0, -100)
    comfy.wait_for_value(mask, "5:0.2")
    comfy.page.mouse.wheel(0, 100)
    comfy.wait_for_value(mask, "5:0.1")
    comfy.expect(comfy.cells(mask).get_by_role("status")).to_have_text("layer 5 · 0.10")
    assert comfy.js("() => [app.canvas.ds.scale, ...app.canvas.ds.offset]") == view


@pytest.mark.usefixtures("at_rest")
def test_a_zoom_that_passes_over_the_cells_stays_a_zoom(comfy, mask):
    cell = comfy.cell(mask, 5).element_handle()
    scale = comfy.js("() => app.canvas.ds.scale")
    comfy.js(f"(cell) => {{ for (const target of [app.canvas.canvas, cell]) ({TURN})(target); }}", cell)
    assert comfy.value(mask) == "none"
    assert comfy.js("() => app.canvas.ds.scale") > scale


def test_presets(comfy, mask):
    cells = comfy.cells(mask)
    for name in ("all", "early", "middle", "late", "none"):
        cells.get_by_role("button", name=name, exact=True).click()
        comfy.wait_for_value(mask, name)
        comfy.expect(cells.get_by_role("button", name=name, exact=True)).to_have_attribute("aria-pressed", "true")
    comfy.enter(mask, "mask", "0-9:0.75, 20")
    cells.get_by_role("button", name="invert").click()
    comfy.wait_for_value(mask, "all, 0-9:0.25, 20:0")


def test_editing_the_text_redraws(comfy, mask):
    comfy.enter(mask, "mask", "3-5, 10:0.25")
    expected = on(3, 4, 5)
    expected[10] = 0.25
    comfy.wait_for_strengths(mask, expected)
    comfy.expect(comfy.cells(mask).get_by_role("status")).to_have_text("4 of 30 layers")


def test_typing_the_text_redraws(comfy, mask):
    field = comfy.page.get_by_label("mask", exact=True)
    if not comfy.vue:
        x, y = comfy.js(
            """(id) => {
                const [x, y] = app.canvas.convertOffsetToCanvas(vdit.node(id).pos);
                const { left, top } = app.canvas.canvas.getBoundingClientRect();
                return [left + x + 150, top + y + vdit.widget(id, "mask").y + 10];
            }""",
            mask,
        )
        comfy.page.mouse.click(x, y)
        field = comfy.page.locator(".graphdialog input")
    field.fill("all, 3:0")
    field.press("Enter")
    comfy.wait_for_strengths(mask, [float(layer != 3) for layer in range(LAYERS)])


def test_text_that_cannot_be_read_says_why(comfy, mask):
    status = comfy.cells(mask).get_by_role("status")
    comfy.enter(mask, "mask", "3, frist")
    comfy.expect(status).to_have_text("cannot read “frist”")
    comfy.wait_for_strengths(mask, on())
    assert comfy.value(mask) == "3, frist", "what the user wrote stays"
    comfy.enter(mask, "mask", "30")
    comfy.expect(status).to_have_text("layer 30 is out of range: 0 to 29")
    comfy.enter(mask, "mask", "29")
    comfy.expect(status).to_have_text("1 of 30 layers")


def test_keys(comfy, mask):
    comfy.cell(mask, 0).focus()
    for key in ("ArrowRight", "ArrowRight", " ", "PageDown", "ArrowUp", "ArrowUp"):
        comfy.page.keyboard.press(key)
    comfy.wait_for_value(mask, "2, 12:0.2")
    comfy.page.keyboard.press("End")
    comfy.expect(comfy.cell(mask, 29)).to_be_focused()


def test_the_text_is_what_is_saved_and_sent(comfy, mask):
    drag(comfy, mask, 3, 8)
    comfy.wait_for_value(mask, "3-8")
    (saved,) = comfy.workflow()["nodes"]
    assert saved["widgets_values"] == ["3-8", LAYERS]
    comfy.add("VDiT_LiveTransfer", x=500)
    prompt = comfy.js("async () => (await app.graphToPrompt()).output")
    assert prompt[str(mask)]["inputs"] == {"mask": "3-8", "layers": LAYERS}


def test_a_reloaded_workflow_shows_its_masks(comfy, mask):
    other = comfy.add("VDiT_LayerMask", x=400, mask="early:0.5", layers=9)
    comfy.enter(mask, "mask", "1, 2:0.5")
    workflow = comfy.workflow()
    comfy.empty()
    comfy.load(workflow)
    comfy.expect(comfy.cells(mask).locator(".cell")).to_have_count(LAYERS)
    comfy.wait_for_strengths(mask, [0, 1, 0.5] + [0] * 27)
    comfy.wait_for_strengths(other, [0.5] * 3 + [0] * 6)
    comfy.cell(other, 8).click()
    comfy.wait_for_value(other, "0-2:0.5, 8")
    assert comfy.value(mask) == "1, 2:0.5"


def test_a_reloaded_node_keeps_its_size(comfy, mask):
    comfy.enter(mask, "layers", 40)
    comfy.draw()
    sizes = []
    for _ in range(3):
        workflow = comfy.workflow()
        sizes.append([round(side) for side in workflow["nodes"][0]["size"]])
        comfy.load(workflow)
    assert sizes[0] == sizes[1] == sizes[2]


def test_a_node_is_as_high_as_its_cells_need(comfy, mask):
    def height():
        comfy.draw()
        return comfy.js("(id) => vdit.node(id).size[1]", mask)

    comfy.enter(mask, "layers", 40)
    tall = height()
    comfy.enter(mask, "layers", 9)
    assert height() < tall - 60
    comfy.enter(mask, "layers", 40)
    assert height() == pytest.approx(tall, abs=1)
    comfy.js("(id) => vdit.node(id).setSize([400, 500])", mask)
    comfy.draw()
    comfy.enter(mask, "layers", 9)
    assert height() == pytest.approx(500, abs=1), "made larger by hand"


def test_a_copy_is_a_mask_of_its_own(comfy, mask):
    comfy.enter(mask, "mask", "0-3")
    comfy.js(
        """(id) => {
            app.canvas.copyToClipboard([vdit.node(id)]);
            app.canvas.pasteFromClipboard({ position: [500, 0] });
        }""",
        mask,
    )
    comfy.draw()
    (copy,) = set(comfy.of_type("VDiT_LayerMask")) - {mask}
    comfy.wait_for_strengths(copy, on(0, 1, 2, 3))
    comfy.cell(copy, 9).click()
    comfy.wait_for_value(copy, "0-3, 9")
    comfy.wait_for_strengths(mask, on(0, 1, 2, 3))


def test_a_stroke_is_undone_at_once(comfy, mask):
    queue = "app.extensionManager.workflow.activeWorkflow.changeTracker.undoQueue"
    comfy.js("vdit.changed()")
    before = comfy.js(f"() => {queue}.length")
    drag(comfy, mask, 10, 19)
    comfy.wait_for_value(mask, "10-19")
    # On a busy machine ComfyUI notes the step a moment after the mouse is up.
    comfy.page.wait_for_function(f"() => {queue}.length > {before} || {queue}.length === 50")
    comfy.page.keyboard.press("Control+z")
    comfy.wait_for_value(mask, "none")
    comfy.draw()
    comfy.wait_for_strengths(mask, on())
    comfy.cell(mask, 1).click()
    comfy.wait_for_value(mask, "1")


@pytest.mark.usefixtures("at_rest")
def test_a_turn_of_the_wheel_is_undone_at_once(comfy, mask):
    tracker = "app.extensionManager.workflow.activeWorkflow.changeTracker"
    comfy.js("vdit.changed()")
    # ComfyUI joins to a step what follows within 50 ms, and keeps 50 steps.
    comfy.js(f"() => new Promise((done) => setTimeout(() => {{ {tracker}.undoQueue.length = 0; done(); }}, 400))")
    cell = comfy.cell(mask, 3).element_handle()
    comfy.js(f"(cell) => {{ for (let turns = 0; turns < 3; turns++) ({TURN})(cell); }}", cell)
    comfy.wait_for_value(mask, "3:0.3")
    comfy.page.wait_for_function(f"() => {tracker}.undoQueue.length === 1")
    comfy.page.keyboard.press("Control+z")
    comfy.wait_for_value(mask, "none")


def test_a_linked_text_is_shown_and_not_painted_over(comfy, mask):
    text = comfy.add("PrimitiveString", x=-50, y=350, value="0-9")
    comfy.connect(text, "STRING", mask, "mask")
    cells = comfy.cells(mask)
    comfy.expect(cells.locator(".note")).to_have_text("the text comes from the link")
    comfy.cell(mask, 3).click()
    assert comfy.value(mask) == "none"
    comfy.expect(cells.get_by_role("button", name="all", exact=True)).to_be_disabled()


def test_in_a_subgraph(comfy, mask):
    inside = comfy.js(
        """(id) => {
            const { subgraph, node } = app.canvas.graph.convertToSubgraph(new Set([vdit.node(id)]));
            vdit.enter(node);
            return subgraph.nodes[0].id;
        }""",
        mask,
    )
    comfy.draw()
    comfy.cell(inside, 4).click()
    comfy.wait_for_value(inside, "4")
    comfy.js("app.canvas.setGraph(app.rootGraph)")


def test_the_renderer_may_change_while_the_page_is_open(comfy, mask):
    setting = "Comfy.VueNodes.Enabled"
    vue = comfy.js("(id) => app.extensionManager.setting.get(id)", setting)
    for value in (not vue, vue):
        comfy.js("([id, value]) => app.extensionManager.setting.set(id, value)", [setting, value])
        comfy.page.wait_for_function("(vue) => LiteGraph.vueNodesMode === vue", arg=value)
        comfy.draw()
        comfy.cell(mask, 5).click()
        comfy.wait_for_value(mask, "none" if value == vue else "5")

"""The grid of Head Mask and its text; what all masks' cells share is tested with Layer Mask."""

from __future__ import annotations

import pytest

LAYERS, HEADS = 30, 12


@pytest.fixture
def mask(comfy) -> int:
    return comfy.add("VDiT_HeadMask", mask="none", layers=LAYERS, heads=HEADS)


def on(*places: tuple[int, int], strength: float = 1) -> list[float]:
    return [strength * ((layer, head) in places) for head in range(HEADS) for layer in range(LAYERS)]


def drag(comfy, mask, *stops: tuple[int, int]):
    mouse = comfy.page.mouse
    for index, place in enumerate(stops):
        box = comfy.cell(mask, *place).bounding_box()
        mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        if index == 0:
            mouse.down()
    mouse.up()


@pytest.mark.parametrize(("layers", "heads"), [(30, 12), (40, 40), (9, 2)])
def test_there_is_a_cell_for_every_head_and_all_are_seen(comfy, mask, layers, heads):
    comfy.enter(mask, "layers", layers)
    comfy.enter(mask, "heads", heads)
    comfy.expect(comfy.cells(mask).locator(".cell")).to_have_count(layers * heads)
    comfy.draw()
    for place in ((0, 0), (layers - 1, heads - 1)):
        cell = comfy.cell(mask, *place)
        comfy.expect(cell).to_be_in_viewport(ratio=1)
        box = cell.bounding_box()
        assert box["width"] >= 8
        assert box["height"] >= 8
    frame = comfy.cells(mask).bounding_box()
    assert box["x"] + box["width"] <= frame["x"] + frame["width"] + 1, "no cell stands out of the node"


def test_clicks_and_drags_paint_heads(comfy, mask):
    comfy.cell(mask, 5, 0).click()
    comfy.wait_for_value(mask, "5@0")
    comfy.wait_for_strengths(mask, on((5, 0)))
    drag(comfy, mask, (3, 2), (3, 4), (6, 4))
    comfy.wait_for_value(mask, "3@2-3, 3-6@4, 5@0")
    comfy.cell(mask, 5, 0).click()
    comfy.wait_for_value(mask, "3@2-4, 4-6@4")


def test_shift_click_fills_the_rectangle(comfy, mask):
    comfy.cell(mask, 8, 6).click()
    comfy.cell(mask, 4, 9).click(modifiers=["Shift"])
    comfy.wait_for_value(mask, "4-8@6-9")


def test_a_number_stands_for_all_of_its_layer_or_head(comfy, mask):
    cells = comfy.cells(mask)
    cells.get_by_title("layer 10, all heads").click()
    comfy.wait_for_value(mask, "10")
    cells.get_by_title("head 3, all layers").click()
    comfy.wait_for_strengths(mask, on(*((10, head) for head in range(HEADS)), *((layer, 3) for layer in range(LAYERS))))
    cells.get_by_title("layer 10, all heads").click()
    comfy.wait_for_strengths(mask, on(*((layer, 3) for layer in range(LAYERS) if layer != 10)))


def test_wheel_keys_and_double_click(comfy, mask):
    comfy.js("() => new Promise((done) => setTimeout(done, 400))")  # what was turned before is another turn
    comfy.cell(mask, 5, 7).hover()
    comfy.page.mouse.wheel(0, -100)
    comfy.wait_for_value(mask, "5@7:0.1")
    comfy.expect(comfy.cells(mask).get_by_role("status")).to_have_text("layer 5, head 7 · 0.10")
    comfy.cell(mask, 5, 7).focus()
    for key in ("ArrowUp", "PageDown", "ArrowRight", " "):
        comfy.page.keyboard.press(key)
    comfy.wait_for_value(mask, "5@7:0.2, 6@8")
    comfy.cell(mask, 20, 1).dblclick()
    comfy.wait_for_value(mask, "20@1")
    comfy.cell(mask, 20, 1).dblclick()
    comfy.wait_for_value(mask, "all")


def test_presets_and_what_is_chosen(comfy, mask):
    cells = comfy.cells(mask)
    for name in ("all", "early", "middle", "late", "none"):
        cells.get_by_role("button", name=name, exact=True).click()
        comfy.wait_for_value(mask, name)
        comfy.expect(cells.get_by_role("button", name=name, exact=True)).to_have_attribute("aria-pressed", "true")
    comfy.enter(mask, "mask", "5@0, 5@3:0.25")
    comfy.expect(cells.get_by_role("status")).to_have_text("2 of 360 heads, in 1 layers")
    cells.get_by_role("button", name="invert").click()
    comfy.wait_for_value(mask, "all, 5@0:0, 5@3:0.75")
    comfy.enter(mask, "mask", "5@12")
    comfy.expect(cells.get_by_role("status")).to_have_text("head 12 is out of range: 0 to 11")


def test_a_saved_workflow_keeps_masks_and_links(comfy, mask):
    transfer = comfy.add("VDiT_TransferAttention", x=600)
    comfy.connect(mask, "HEAD_MASK", transfer, "mask")
    comfy.enter(mask, "mask", "5@0")
    for kind in ("VDiT_LiveTransfer", "VDiT_SinkControl"):
        user = comfy.add(kind, x=600, y=300)
        comfy.connect(mask, "HEAD_MASK", user, "mask")
    sparse = comfy.add("VDiT_SparseAttention", x=900)
    comfy.connect(mask, "HEAD_MASK", sparse, "dense_mask")
    workflow = comfy.workflow()
    assert len(workflow["links"]) == 4
    comfy.empty()
    comfy.load(workflow)
    assert len(comfy.workflow()["links"]) == 4
    comfy.wait_for_strengths(mask, on((5, 0)))
    prompt = comfy.js("async () => (await app.graphToPrompt()).output")
    assert prompt[str(mask)]["inputs"] == {"mask": "5@0", "layers": LAYERS, "heads": HEADS}
    assert prompt[str(transfer)]["inputs"]["mask"] == [str(mask), 0]
    assert prompt[str(sparse)]["inputs"]["dense_mask"] == [str(mask), 0]


def test_a_layer_mask_still_fits_and_nothing_else_does(comfy):
    transfer = comfy.add("VDiT_TransferAttention", x=600)
    layers = comfy.add("VDiT_LayerMask", y=300)
    comfy.connect(layers, "LAYER_MASK", transfer, "mask")
    assert len(comfy.workflow()["links"]) == 1
    other = comfy.add("VDiT_TransferAttention", x=600, y=400)
    comfy.js("([from, to]) => vdit.node(from).connect(0, vdit.node(to), 'mask')", [other, transfer])
    (link,) = comfy.workflow()["links"]
    assert str(link[1]) == str(layers)


def test_the_shape_is_the_models(comfy):
    mask = comfy.add("VDiT_HeadMask")
    comfy.expect(comfy.cells(mask).locator(".note")).to_have_text("30 layers, 12 heads assumed")
    model, live = comfy.add("VDiT_DemoModel", x=400), comfy.add("VDiT_LiveTransfer", x=800)
    comfy.connect(model, "MODEL", live, "model")
    comfy.connect(mask, "HEAD_MASK", live, "mask")
    comfy.expect(comfy.cells(mask).locator(".cell")).to_have_count(9 * 2)
    comfy.expect(comfy.cells(mask).locator(".note")).to_have_text("")


def test_inputs_of_workflows_saved_before_there_were_head_masks_take_one(comfy, mask):
    transfer = comfy.add("VDiT_TransferAttention", x=600)
    layers = comfy.add("VDiT_LayerMask", y=400)
    comfy.connect(layers, "LAYER_MASK", transfer, "mask")
    workflow = comfy.workflow()
    (saved,) = (node for node in workflow["nodes"] if node["type"] == "VDiT_TransferAttention")
    (slot,) = (slot for slot in saved["inputs"] if slot["name"] == "mask")
    slot["type"] = "LAYER_MASK"
    comfy.empty()
    comfy.load(workflow)
    (link,) = comfy.workflow()["links"]
    assert str(link[1]) == str(layers)
    comfy.connect(mask, "HEAD_MASK", transfer, "mask")
    (link,) = comfy.workflow()["links"]
    assert str(link[1]) == str(mask)

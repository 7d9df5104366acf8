"""Dense layers of the sparse nodes: cells that edit them, as many as the model has that is connected."""

from __future__ import annotations

import pytest

from .test_layer_count import loader, wait_for_cells

NAME = "dense_layers"


@pytest.fixture(params=["VDiT_SparseAttention", "VDiT_SparseReport"])
def node(comfy, request) -> int:
    return comfy.add(request.param, x=350)


@pytest.fixture
def of_demo(comfy, node) -> int:
    """The node behind the demo model, which has nine layers."""
    comfy.connect(comfy.add("VDiT_DemoModel", x=-50), "MODEL", node, "MODEL")
    wait_for_cells(comfy, node, 9)
    return node


def test_a_click_makes_a_layer_dense(comfy, of_demo):
    comfy.cell(of_demo, 3).click()
    comfy.wait_for_value(of_demo, "3", NAME)
    comfy.wait_for_strengths(of_demo, [float(layer == 3) for layer in range(9)])
    comfy.cell(of_demo, 0).click()
    comfy.wait_for_value(of_demo, "0, 3", NAME)
    comfy.cell(of_demo, 3).click()
    comfy.wait_for_value(of_demo, "0", NAME)


def test_presets(comfy, of_demo):
    cells = comfy.cells(of_demo)
    comfy.expect(cells.get_by_role("button", name="none")).to_have_attribute("aria-pressed", "true")
    cells.get_by_role("button", name="early").click()
    comfy.wait_for_value(of_demo, "early", NAME)
    comfy.wait_for_strengths(of_demo, [1.0] * 3 + [0.0] * 6)
    cells.get_by_role("button", name="invert").click()
    comfy.wait_for_value(of_demo, "3-8", NAME)


def test_editing_the_text_redraws(comfy, of_demo):
    comfy.enter(of_demo, NAME, "0, 3:0.5")
    comfy.wait_for_strengths(of_demo, [1, 0, 0, 0.5, 0, 0, 0, 0, 0])
    comfy.enter(of_demo, NAME, "9")
    comfy.expect(comfy.cells(of_demo).get_by_role("status")).to_have_text("layer 9 is out of range: 0 to 8")


def test_the_cells_follow_the_model(comfy, node):
    wait_for_cells(comfy, node, 30, assumed=True)
    demo = comfy.add("VDiT_DemoModel", x=-50)
    comfy.connect(demo, "MODEL", node, "MODEL")
    wait_for_cells(comfy, node, 9)
    unet = loader(comfy, "UNETLoader", "unet_name", "wan2.1_t2v_14B_fp16.safetensors", x=-50, y=150)
    comfy.connect(unet, "MODEL", node, "MODEL")
    wait_for_cells(comfy, node, 40)
    comfy.enter(unet, "unet_name", "wan2.1_t2v_1.3B_fp16.safetensors")
    wait_for_cells(comfy, node, 30)
    comfy.js("(id) => { vdit.node(id).disconnectInput(0); vdit.changed(); }", node)
    wait_for_cells(comfy, node, 30, assumed=True)


def test_a_run_tells_a_count_that_no_file_name_does(comfy, node):
    comfy.js("([id, layers]) => vdit.node(id).setProperty('vdit_layers', layers)", [node, 40])
    wait_for_cells(comfy, node, 40)


def test_every_cell_is_seen_below_the_fields(comfy, node):
    """With the four rows of a model of 40 layers, too."""
    unet = loader(comfy, "UNETLoader", "unet_name", "wan_14B.safetensors", x=-50)
    comfy.connect(unet, "MODEL", node, "MODEL")
    wait_for_cells(comfy, node, 40)
    comfy.draw()
    comfy.expect(comfy.cell(node, 39)).to_be_in_viewport(ratio=1)
    top = comfy.cells(node).bounding_box()["y"]
    if comfy.vue:
        fields = comfy.page.locator(f"[data-node-id='{node}'] .lg-node-widget:not(:has(.vdit-mask))")
        bottoms = [box["y"] + box["height"] for box in (field.bounding_box() for field in fields.all()) if box]
    else:
        bottoms = comfy.js(
            """(id) => vdit.node(id).widgets.filter(({ name }) => name !== "cells").map(({ y, computedHeight }) => {
                const at = app.canvas.convertOffsetToCanvas([0, vdit.node(id).pos[1] + y + (computedHeight ?? 20)]);
                return app.canvas.canvas.getBoundingClientRect().top + at[1];
            })""",
            node,
        )
    assert bottoms
    assert max(bottoms) <= top


def test_they_are_loaded_again(comfy, of_demo):
    comfy.cell(of_demo, 5).click()
    comfy.wait_for_value(of_demo, "5", NAME)
    kind = comfy.js("(id) => vdit.node(id).type", of_demo)
    comfy.load(comfy.workflow())
    (again,) = comfy.of_type(kind)
    wait_for_cells(comfy, again, 9)
    assert comfy.value(again, NAME) == "5"
    comfy.wait_for_strengths(again, [float(layer == 5) for layer in range(9)])

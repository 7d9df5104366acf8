"""Layer Mask has as many cells as the model that it is for has layers, wherever that stands in the graph."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def mask(comfy) -> int:
    return comfy.add("VDiT_LayerMask", x=-50, y=350)


@pytest.fixture
def live(comfy) -> int:
    return comfy.add("VDiT_LiveTransfer", x=700)


def wait_for_cells(comfy, mask, count, assumed=False):
    cells = comfy.cells(mask)
    comfy.expect(cells.locator(".cell")).to_have_count(count)
    comfy.expect(cells.locator(".note")).to_have_text(f"{count} layers assumed" if assumed else "")


def loader(comfy, kind, widget, name, **place):
    """A model loader with the name of a file that need not be there."""
    node = comfy.add(kind, **place)
    comfy.js(
        "([id, name, file]) => vdit.widget(id, name).options.values.push(file)",
        [node, widget, name],
    )
    comfy.enter(node, widget, name)
    return node


def test_nothing_known(comfy, mask):
    wait_for_cells(comfy, mask, 30, assumed=True)


def test_the_count_follows_the_connections(comfy, mask, live):
    demo = comfy.add("VDiT_DemoModel", x=-50)
    comfy.connect(demo, "MODEL", live, "MODEL")
    wait_for_cells(comfy, mask, 30, assumed=True)
    comfy.connect(mask, "LAYER_MASK", live, "LAYER_MASK")
    wait_for_cells(comfy, mask, 9)
    comfy.js("(id) => { vdit.node(id).disconnectInput(0); vdit.changed(); }", live)
    wait_for_cells(comfy, mask, 30, assumed=True)


@pytest.mark.parametrize(
    ("file", "layers"),
    [
        ("wan2.1_t2v_1.3B_fp16.safetensors", 30),
        ("Wan2_1-T2V-1_3B_fp8.safetensors", 30),
        ("wan2.1_t2v_14B_fp8.safetensors", 40),
        ("wan2.2_ti2v_5B_fp16.safetensors", 30),
        ("Wan2.1-14b-Q4_K_M.gguf", 40),
        ("hunyuan_video_t2v_720p_bf16.safetensors", 60),
        ("hunyuanvideo1.5_720p_t2v_fp16.safetensors", 54),
        ("wan2.1_vace_14B_fp16.safetensors", 48),
        ("mochi_preview_bf16.safetensors", 48),
        ("ltx-video-2b-v0.9.5.safetensors", 28),
        ("ltx-2-19b-dev-fp8.safetensors", 48),
        ("cosmos_predict2_14B_video2world_720p_16fps.safetensors", 36),
        ("kandinsky5lite_t2v_sft_5s.safetensors", 32),
    ],
)
def test_the_loaders_file_name_tells_the_size(comfy, mask, live, file, layers):
    unet = loader(comfy, "UNETLoader", "unet_name", file, x=-50)
    lora = comfy.add("LoraLoaderModelOnly", x=350)
    comfy.connect(unet, "MODEL", lora, "MODEL")
    comfy.connect(lora, "MODEL", live, "MODEL")
    comfy.connect(mask, "LAYER_MASK", live, "LAYER_MASK")
    wait_for_cells(comfy, mask, layers)


@pytest.mark.parametrize("file", ["flux1-dev.safetensors", "model_1.5B.safetensors", "114B.safetensors", "w14bit.gguf"])
def test_a_file_name_without_a_size_tells_nothing(comfy, mask, live, file):
    unet = loader(comfy, "UNETLoader", "unet_name", file, x=-50)
    comfy.connect(unet, "MODEL", live, "MODEL")
    comfy.connect(mask, "LAYER_MASK", live, "LAYER_MASK")
    wait_for_cells(comfy, mask, 30, assumed=True)


def test_another_file_is_another_count(comfy, mask, live):
    unet = loader(comfy, "UNETLoader", "unet_name", "wan_1.3B.safetensors", x=-50)
    comfy.connect(unet, "MODEL", live, "MODEL")
    comfy.connect(mask, "LAYER_MASK", live, "LAYER_MASK")
    wait_for_cells(comfy, mask, 30)
    comfy.enter(unet, "unet_name", "wan_14B.safetensors")
    wait_for_cells(comfy, mask, 40)


def test_the_widget_has_the_last_word(comfy, mask, live):
    demo = comfy.add("VDiT_DemoModel", x=-50)
    comfy.connect(demo, "MODEL", live, "MODEL")
    comfy.connect(mask, "LAYER_MASK", live, "LAYER_MASK")
    comfy.enter(mask, "layers", 12)
    wait_for_cells(comfy, mask, 12)


def test_through_reroutes_and_bypassed_nodes(comfy, mask, live):
    demo = comfy.add("VDiT_DemoModel", x=-50)
    record = comfy.add("VDiT_RecordAttention", x=300)
    reroutes = [comfy.add("Reroute", x=250, y=400), comfy.add("Reroute", x=150, y=-60)]
    comfy.connect(demo, "MODEL", reroutes[1], "*")
    comfy.connect(reroutes[1], "MODEL", record, "MODEL")
    comfy.connect(record, "MODEL", live, "MODEL")
    comfy.connect(mask, "LAYER_MASK", reroutes[0], "*")
    comfy.connect(reroutes[0], "LAYER_MASK", live, "LAYER_MASK")
    wait_for_cells(comfy, mask, 9)
    comfy.js("(id) => { vdit.node(id).mode = 4; vdit.changed(); }", record)
    wait_for_cells(comfy, mask, 9)


@pytest.mark.parametrize("inside", [("mask",), ("mask", "live"), ("live",), ("live", "demo"), ("demo",)])
def test_across_the_border_of_a_subgraph(comfy, mask, live, inside):
    demo = comfy.add("VDiT_DemoModel", x=-50)
    comfy.connect(demo, "MODEL", live, "MODEL")
    comfy.connect(mask, "LAYER_MASK", live, "LAYER_MASK")
    ids = {"mask": mask, "live": live, "demo": demo}
    comfy.js(
        "(ids) => { app.canvas.graph.convertToSubgraph(new Set(ids.map(vdit.node))); vdit.changed(); }",
        [ids[name] for name in inside],
    )
    for _ in ("as made", "as loaded"):
        if inside[0] == "mask":
            comfy.js("() => vdit.enter(app.rootGraph.nodes.find((node) => node.subgraph))")
        comfy.draw()
        (moved,) = comfy.of_type("VDiT_LayerMask")
        wait_for_cells(comfy, moved, 9)
        comfy.load(comfy.workflow())


def test_a_run_tells_the_count_for_good(comfy, mask, live):
    unet = loader(comfy, "UNETLoader", "unet_name", "no_size.safetensors", x=-50)
    comfy.connect(unet, "MODEL", live, "MODEL")
    comfy.connect(mask, "LAYER_MASK", live, "LAYER_MASK")
    told = {"node": str(live), "text": "replaced 80 of 80 calls", "good": True, "layers": 40, "prompt": "first"}
    comfy.send("vdit.report", told | {"workflow": comfy.js("() => app.rootGraph.id")})
    wait_for_cells(comfy, mask, 40)
    comfy.load(comfy.workflow())
    wait_for_cells(comfy, mask, 40)


def test_kinds_of_blocks_stand_apart(comfy, mask, live):
    unet = loader(comfy, "UNETLoader", "unet_name", "hunyuan_video_t2v_720p_bf16.safetensors", x=-50)
    comfy.connect(unet, "MODEL", live, "MODEL")
    comfy.connect(mask, "LAYER_MASK", live, "LAYER_MASK")
    wait_for_cells(comfy, mask, 60)
    cells = comfy.cells(mask)
    comfy.expect(cells.locator(".label.kind")).to_have_text(["double", "single"])
    comfy.enter(mask, "mask", "double 3, single 0-1:0.5")
    comfy.wait_for_strengths(mask, [{3: 1, 20: 0.5, 21: 0.5}.get(layer, 0) for layer in range(60)])
    assert comfy.cell(mask, 21).get_attribute("aria-label") == "layer 21, single 1"
    comfy.cell(mask, 59).click()
    comfy.wait_for_value(mask, "3, 20-21:0.5, 59")
    if folder := os.environ.get("SHOTS"):
        comfy.page.screenshot(path=f"{folder}/kinds.png")

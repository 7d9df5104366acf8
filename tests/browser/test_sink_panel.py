"""The panel of the Sink Inspector: what a run gave is shown, head by head, step by step, token by token."""

from __future__ import annotations

import re
import shutil
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Locator

from . import sink_folder
from .sink_folder import PER_DOUBLING, UNIFORM

EMPTY, GONE = "Run to see where the attention goes.", "The files of this run are gone: run again."
LAYERS, HEADS, STEPS, GRID = 9, 2, 4, (5, 8, 8)
TOKENS = 320

PIXEL = """(canvas, token) => {
    const { width, height } = canvas, at = token % (width * height);
    return [...canvas.getContext("2d").getImageData(at % width, Math.floor(at / width), 1, 1).data];
}"""


def make(comfy, **sizes: Any) -> dict[str, Any]:
    """What a run would leave."""
    size: dict[str, Any] = {
        "layers": LAYERS,
        "heads": HEADS,
        "steps": STEPS,
        "grid": GRID,
        "branches": ("cond", "uncond"),
    }
    return sink_folder.write(comfy.server.base / "temp", **size | sizes)


def ran(comfy, node: int | str, told: dict[str, Any]) -> None:
    """As if the server had told it."""
    comfy.js(
        """([node, told]) => app.api.dispatchCustomEvent("executed", {
            node, display_node: node, output: { vdit_sinks: [told] }, prompt_id: "made up",
        })""",
        [str(node), told],
    )
    comfy.draw()


def panel(comfy, node: int) -> Locator:
    comfy.js("(id) => { vdit.widget(id, 'panel').element.dataset.node = id; }", node)
    return comfy.page.locator(f".vdit-sinks[data-node='{node}']")


def cell(comfy, node: int, layer: int, head: int) -> Locator:
    return panel(comfy, node).locator(f"[data-layer='{layer}'][data-head='{head}']")


def box(comfy, node: int, frame: int) -> Locator:
    return panel(comfy, node).locator(".box").nth(frame)


def title(comfy, node: int, text: str | re.Pattern[str]) -> None:
    comfy.expect(panel(comfy, node).locator(".title")).to_have_text(text)


def readout(comfy, node: int, first: str | re.Pattern[str], second: str | re.Pattern[str] | None = None) -> None:
    lines = panel(comfy, node).locator(".readout > div")
    comfy.expect(lines.nth(0)).to_have_text(first)
    if second is not None:
        comfy.expect(lines.nth(1)).to_have_text(second)


def over(comfy, node: int, token: int) -> None:
    """The mouse over a token."""
    _, height, width = GRID
    frame, place = divmod(token, height * width)
    edges = box(comfy, node, frame).bounding_box()
    row, column = divmod(place, width)
    comfy.page.mouse.move(
        edges["x"] + (column + 0.5) * edges["width"] / width, edges["y"] + (row + 0.5) * edges["height"] / height
    )


@pytest.fixture
def inspector(comfy) -> int:
    return comfy.add("VDiT_SinkInspector", y=-150)


@pytest.fixture
def told(comfy, inspector) -> dict[str, Any]:
    told = make(comfy)
    ran(comfy, inspector, told)
    return told


def test_before_a_run_it_says_what_to_do(comfy, inspector):
    comfy.expect(panel(comfy, inspector).get_by_text(EMPTY)).to_be_visible()
    comfy.expect(panel(comfy, inspector).get_by_role("gridcell")).to_have_count(0)


def test_it_begins_with_the_strongest_key(comfy, inspector, told):
    comfy.expect(panel(comfy, inspector).get_by_role("gridcell")).to_have_count(LAYERS * HEADS)
    strongest = max(peak for call in told["peaks"] for row in call for peak in row)
    title(comfy, inspector, f"layer 8 · head 0 · strongest key {strongest:.0f} × uniform, 2 sinks")
    readout(
        comfy, inspector,
        f"strongest: token 7 · frame 0, row 0, column 7 · {strongest:.0f} × uniform, "
        f"{100 * strongest / TOKENS:.0f} % of all attention",
        "evenness 0.83 · key norm 4.25 × the median · value norm 0.08 ×",
    )  # fmt: skip
    comfy.expect(panel(comfy, inspector).get_by_text(EMPTY)).to_be_hidden()
    comfy.expect(panel(comfy, inspector).locator(".cell.framed")).to_have_count(3)
    comfy.expect(panel(comfy, inspector).locator(".ring")).to_have_count(2)
    assert [box(comfy, inspector, frame).locator(".ring").count() for frame in range(5)] == [1, 1, 0, 0, 0]


def test_a_click_shows_another_head(comfy, inspector, told):
    cell(comfy, inspector, 3, 1).click()
    title(comfy, inspector, re.compile(r"layer 3 · head 1 · strongest key [\d.]+ × uniform, no sinks"))
    comfy.expect(panel(comfy, inspector).locator(".ring")).to_have_count(0)
    comfy.expect(cell(comfy, inspector, 3, 1)).to_have_attribute("aria-selected", "true")
    comfy.expect(cell(comfy, inspector, 8, 0)).to_have_attribute("aria-selected", "false")


def codes_of(comfy, told: dict[str, Any], call: int, layer: int, head: int) -> np.ndarray:
    file = comfy.server.base / "temp" / told["folder"] / f"layer-{layer:02}.mass"
    return np.fromfile(file, np.uint8).reshape(-1, HEADS, TOKENS)[call, head]


def test_the_colours_are_those_of_the_masses(comfy, inspector, told):
    """As matplotlib draws them, to 3 of 255 and rounding."""
    matplotlib = pytest.importorskip("matplotlib")
    panel(comfy, inspector).get_by_role("button", name="uncond", exact=True).click()
    cell(comfy, inspector, 4, 1).click()
    panel(comfy, inspector).get_by_role("slider", name="step").press("Home")
    readout(comfy, inspector, re.compile(r"strongest: token \d+"))
    codes = codes_of(comfy, told, 1, 4, 1)
    most = max(32, np.array(told["peaks"]).max())
    for token in (0, 7, 63, 64, 200, 319):
        place = np.log2(2 ** ((codes[token] - float(UNIFORM)) / PER_DOUBLING) / 0.25) / np.log2(most / 0.25)
        expected = 255 * np.array(matplotlib.colormaps["cividis"](float(np.clip(place, 0, 1)))[:3])
        canvas = box(comfy, inspector, token // 64).locator("canvas")
        *shown, opaque = canvas.evaluate(PIXEL, token)
        assert shown == pytest.approx(expected, abs=6), token
        assert opaque == 255


def test_the_step_and_the_prompt_can_be_chosen(comfy, inspector, told):
    sinks = panel(comfy, inspector)
    slider = sinks.get_by_role("slider", name="step")
    slider.press("Home")
    comfy.expect(slider).to_have_attribute("aria-valuetext", "step 0, noise level 1.00")
    for key in ("ArrowRight", "ArrowRight"):
        slider.press(key)
    comfy.expect(sinks.get_by_text("2 · noise 0.50")).to_be_visible()
    peaks = dict(zip([(c["step"], c["branch"]) for c in told["calls"]], told["peaks"], strict=True))
    title(comfy, inspector, re.compile(f"strongest key {peaks[2, 'cond'][8][0]:.0f} × uniform"))
    sinks.get_by_role("button", name="uncond", exact=True).click()
    title(comfy, inspector, re.compile(f"strongest key {peaks[2, 'uncond'][8][0]:.0f} × uniform"))
    comfy.expect(sinks.get_by_role("button", name="uncond", exact=True)).to_have_attribute("aria-pressed", "true")
    comfy.expect(sinks.get_by_text("2 · noise 0.50")).to_be_visible()
    comfy.expect(cell(comfy, inspector, 0, 1)).to_have_text(f"{peaks[2, 'uncond'][0][1]:.1f}")


def test_one_prompt_needs_no_choice(comfy, inspector):
    ran(comfy, inspector, make(comfy, branches=("cond",)))
    comfy.expect(panel(comfy, inspector).get_by_role("gridcell")).to_have_count(LAYERS * HEADS)
    comfy.expect(panel(comfy, inspector).get_by_role("button")).to_have_count(0)


def test_a_slider_does_not_move_the_node(comfy, inspector, told):
    before = comfy.js("(id) => [...vdit.node(id).pos]", inspector)
    edges = panel(comfy, inspector).get_by_role("slider", name="step").bounding_box()
    y = edges["y"] + edges["height"] / 2
    comfy.page.mouse.move(edges["x"] + 8, y)
    comfy.page.mouse.down()
    comfy.page.mouse.move(edges["x"] + edges["width"] - 4, y, steps=5)
    comfy.page.mouse.up()
    comfy.expect(panel(comfy, inspector).get_by_text("3 · noise 0.25")).to_be_visible()
    assert comfy.js("(id) => [...vdit.node(id).pos]", inspector) == before


def test_arrow_keys_choose_a_head(comfy, inspector, told):
    cell(comfy, inspector, 8, 0).focus()
    for key in ("ArrowDown", "ArrowLeft", "ArrowLeft"):
        comfy.page.keyboard.press(key)
    comfy.expect(cell(comfy, inspector, 6, 1)).to_be_focused()
    title(comfy, inspector, re.compile("layer 6 · head 1"))
    comfy.page.keyboard.press("Home")
    title(comfy, inspector, re.compile("layer 0 · head 1"))
    comfy.page.keyboard.press("End")
    comfy.expect(cell(comfy, inspector, 8, 1)).to_be_focused()
    comfy.expect(cell(comfy, inspector, 8, 1)).to_have_accessible_name(
        re.compile(r"layer 8, head 1, [\d.]+ times uniform")
    )
    comfy.expect(cell(comfy, inspector, 8, 0)).to_have_accessible_name(re.compile("layer 8, head 0, has sinks, "))
    assert comfy.js("() => app.canvas.graph.nodes.length") == 1


def test_the_pointer_tells_of_tokens_and_heads(comfy, inspector, told):
    panel(comfy, inspector).get_by_role("slider", name="step").press("Home")
    ratio = 2 ** ((float(codes_of(comfy, told, 0, 8, 0)[65]) - UNIFORM) / PER_DOUBLING)
    over(comfy, inspector, 65)
    readout(
        comfy, inspector,
        f"token 65 · frame 1, row 0, column 1 · {ratio:.0f} × uniform, {100 * ratio / TOKENS:.0f} % of all attention",
    )  # fmt: skip
    over(comfy, inspector, 7)
    readout(
        comfy,
        inspector,
        re.compile("^token 7 · frame 0, row 0, column 7"),
        re.compile("^evenness 0.83 · key norm 4.25"),
    )
    comfy.expect(box(comfy, inspector, 0).locator(".cursor")).to_be_visible()
    cell(comfy, inspector, 2, 1).hover()
    readout(comfy, inspector, re.compile("^layer 2, head 1: strongest key"), "click to look at it")
    comfy.page.mouse.move(5, 995)
    readout(comfy, inspector, re.compile("^strongest: token 7 "))


def test_of_a_weak_key_less_is_known(comfy, inspector, told):
    strongest = told["strongest"]
    weakest = int(codes_of(comfy, told, 0, 8, 0).argmin())
    over(comfy, inspector, weakest)
    readout(
        comfy, inspector, re.compile(rf"^token {weakest} · .+ · 0\.\d × uniform, 0\.\d+ % of all attention$"),
        f"evenness and norms are kept of a head's {strongest} strongest keys only",
    )  # fmt: skip


def test_without_values_that_is_said(comfy, inspector):
    """Of a recording of queries and keys."""
    told = make(comfy)
    for file in (comfy.server.base / "temp" / told["folder"]).glob("*.strongest"):
        table = np.fromfile(file, np.float32).reshape(-1, 5)
        table[:, 4] = np.nan
        table.tofile(file)
    ran(comfy, inspector, told)
    readout(comfy, inspector, re.compile("strongest: token 7"), re.compile("value norm not recorded$"))


def test_keys_go_over_the_tokens(comfy, inspector, told):
    frames = panel(comfy, inspector).get_by_role("application")
    panel(comfy, inspector).get_by_role("slider", name="opacity of the colours").focus()
    comfy.page.keyboard.press("Tab")
    comfy.expect(frames).to_be_focused()
    readout(comfy, inspector, re.compile("^token 7 · frame 0, row 0, column 7"))
    for key in ("PageDown", "ArrowDown", "ArrowLeft"):
        comfy.page.keyboard.press(key)
    readout(comfy, inspector, re.compile("^token 78 · frame 1, row 1, column 6"))
    comfy.page.keyboard.press("Home")
    readout(comfy, inspector, re.compile("^token 7 "))
    comfy.page.keyboard.press("ArrowUp")
    readout(comfy, inspector, re.compile("^token 7 "))
    comfy.page.keyboard.press("Enter")
    comfy.expect(box(comfy, inspector, 1)).to_be_hidden()
    comfy.page.keyboard.press("PageDown")
    comfy.expect(box(comfy, inspector, 1)).to_be_visible()
    comfy.expect(box(comfy, inspector, 0)).to_be_hidden()
    comfy.page.keyboard.press("Enter")
    comfy.expect(box(comfy, inspector, 0)).to_be_visible()
    comfy.page.keyboard.press("Tab")
    readout(comfy, inspector, re.compile("^strongest: token 7 "))


def test_a_frame_alone_is_larger(comfy, inspector, told):
    small = box(comfy, inspector, 2).bounding_box()["width"]
    box(comfy, inspector, 2).click()
    comfy.expect(box(comfy, inspector, 0)).to_be_hidden()
    assert box(comfy, inspector, 2).bounding_box()["width"] > 1.5 * small
    box(comfy, inspector, 2).click()
    comfy.expect(box(comfy, inspector, 0)).to_be_visible()


def test_the_pictures_are_grey_below_the_colours(comfy, inspector, told):
    picture = box(comfy, inspector, 4).locator("img")
    comfy.expect(picture).to_have_css("filter", "grayscale(1)")
    comfy.page.wait_for_function("(picture) => picture.naturalWidth > 0", arg=picture.element_handle())
    assert picture.get_attribute("src").endswith("type=temp")
    canvas = box(comfy, inspector, 4).locator("canvas")
    comfy.expect(canvas).to_have_css("opacity", "0.65")
    panel(comfy, inspector).get_by_role("slider", name="opacity of the colours").press("ArrowLeft")
    comfy.expect(canvas).to_have_css("opacity", "0.6")


def test_without_pictures_the_colours_are_whole(comfy, inspector):
    ran(comfy, inspector, make(comfy, pictures=False))
    comfy.expect(box(comfy, inspector, 0).locator("canvas")).to_have_css("opacity", "1")
    comfy.expect(panel(comfy, inspector).locator("img")).to_have_count(0)


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


def test_a_step_that_was_not_measured_says_so(comfy, inspector):
    told = make(comfy)
    folder = comfy.server.base / "temp" / told["folder"]
    for file in folder.glob("layer-*"):  # the first call
        content = file.read_bytes()
        size = len(content) // len(told["calls"])
        file.write_bytes(bytes(size) + content[size:])
    told["peaks"][0] = [[0] * HEADS] * LAYERS
    ran(comfy, inspector, told)
    cell(comfy, inspector, 8, 0).click()
    panel(comfy, inspector).get_by_role("button", name="cond", exact=True).click()
    panel(comfy, inspector).get_by_role("slider", name="step").press("Home")
    title(comfy, inspector, "layer 8 · head 0 · not measured in this step")
    readout(comfy, inspector, "not measured in this step", "")


def test_another_run_is_looked_at_in_the_same_place(comfy, inspector, told):
    cell(comfy, inspector, 2, 1).click()
    panel(comfy, inspector).get_by_role("slider", name="step").press("End")
    title(comfy, inspector, re.compile("layer 2 · head 1"))
    ran(comfy, inspector, make(comfy))
    title(comfy, inspector, re.compile("layer 2 · head 1"))
    comfy.expect(panel(comfy, inspector).get_by_text("3 · noise 0.25")).to_be_visible()
    ran(comfy, inspector, make(comfy, layers=2))
    title(comfy, inspector, re.compile("layer 1 · head 0")), "there is no layer 2"


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


@pytest.mark.parametrize(
    "size", [{}, {"layers": 40, "heads": 40, "grid": (21, 15, 26), "steps": 1}], ids=["demo", "14B"]
)
def test_nothing_overlaps(comfy, inspector, size):
    ran(comfy, inspector, make(comfy, **size))
    readout(comfy, inspector, re.compile("^strongest: token"))
    comfy.draw()
    parts = panel(comfy, inspector).locator(".shown > *")
    boxes = [part.bounding_box() for part in parts.all()]
    for above, below in pairwise(boxes):
        assert above["y"] + above["height"] <= below["y"] + 0.5
    last = panel(comfy, inspector).locator("figure").last.bounding_box()
    assert last["y"] + last["height"] <= boxes[-1]["y"] + 0.5
    assert last["width"] >= 20
    whole = panel(comfy, inspector).bounding_box()
    assert boxes[-1]["y"] + boxes[-1]["height"] <= whole["y"] + whole["height"] + 0.5
    x, y, width, height = comfy.js("(id) => [...vdit.node(id).pos, ...vdit.node(id).size]", inspector)
    left, top = comfy.js(
        "() => { const { left, top } = app.canvas.canvas.getBoundingClientRect(); return [left, top]; }"
    )
    dx, dy = comfy.js("() => app.canvas.ds.offset")
    assert left + dx + x <= whole["x"]
    assert whole["x"] + whole["width"] <= left + dx + x + width
    assert whole["y"] + whole["height"] <= top + dy + y + height


def test_a_large_inspection(comfy, inspector):
    """Of Wan2.1-1.3B at 832 x 480 x 81: pieces of a few bytes of files of 240 MB in all."""
    sizes: list[int] = []
    comfy.page.on(
        "response",
        lambda answer: (
            sizes.append(int(answer.headers.get("content-length", 0)))
            if "attention_sinks" in answer.url and ".jpg" not in answer.url
            else None
        ),
    )
    told = make(comfy, layers=30, heads=12, steps=20, grid=(21, 30, 52), branches=("cond",))
    ran(comfy, inspector, told)
    comfy.expect(panel(comfy, inspector).get_by_role("gridcell")).to_have_count(360)
    title(comfy, inspector, re.compile(r"layer 29 · head \d+ · strongest key \d+ × uniform, \d sinks?"))
    readout(comfy, inspector, re.compile("^strongest: token 7 "))
    cell(comfy, inspector, 3, 4).click()
    title(comfy, inspector, re.compile("layer 3 · head 4"))
    readout(comfy, inspector, re.compile("^strongest: token"))
    assert sorted(sizes) == [64 * 20] * 2 + [32760] * 2
    shutil.rmtree(comfy.server.base / "temp" / told["folder"])

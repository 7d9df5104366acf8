"""The panel of the Sink Inspector by mouse and by keys: heads, steps, prompts, tokens, frames."""

from __future__ import annotations

import re

from .sink_folder import PER_DOUBLING, UNIFORM
from .sink_panel import TOKENS, box, cell, codes_of, over, panel, readout, title


def test_a_click_shows_another_head(comfy, inspector, told):
    cell(comfy, inspector, 3, 1).click()
    title(comfy, inspector, re.compile(r"layer 3 · head 1 · strongest key [\d.]+ × uniform, no sinks"))
    comfy.expect(panel(comfy, inspector).locator(".ring")).to_have_count(0)
    comfy.expect(cell(comfy, inspector, 3, 1)).to_have_attribute("aria-selected", "true")
    comfy.expect(cell(comfy, inspector, 8, 0)).to_have_attribute("aria-selected", "false")


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
        re.compile("^participation ratio 0.83 · key norm 4.25"),
    )
    comfy.expect(box(comfy, inspector, 0).locator(".cursor")).to_be_visible()
    cell(comfy, inspector, 2, 1).hover()
    readout(comfy, inspector, re.compile("^layer 2, head 1: strongest key"), "click to look at it")
    comfy.page.mouse.move(5, 995)
    readout(comfy, inspector, re.compile("^strongest: token 7 "))


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

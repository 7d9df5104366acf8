"""What a run gave, as the panel of the Sink Inspector shows it."""

from __future__ import annotations

import re
import shutil
from itertools import pairwise

import numpy as np
import pytest

from .sink_folder import PER_DOUBLING, UNIFORM
from .sink_panel import EMPTY, HEADS, LAYERS, TOKENS, box, cell, codes_of, make, over, panel, ran, readout, title

PIXEL = """(canvas, token) => {
    const { width, height } = canvas, at = token % (width * height);
    return [...canvas.getContext("2d").getImageData(at % width, Math.floor(at / width), 1, 1).data];
}"""


def test_it_begins_with_the_strongest_key(comfy, inspector, told):
    comfy.expect(panel(comfy, inspector).get_by_role("gridcell")).to_have_count(LAYERS * HEADS)
    strongest = max(peak for call in told["peaks"] for row in call for peak in row)
    title(comfy, inspector, f"layer 8 · head 0 · strongest key {strongest:.0f} × uniform, 2 sinks")
    readout(
        comfy, inspector,
        f"strongest: token 7 · frame 0, row 0, column 7 · {strongest:.0f} × uniform, "
        f"{100 * strongest / TOKENS:.0f} % of all attention",
        "participation ratio 0.83 · key norm 4.25 × the median · value norm 0.08 ×",
    )  # fmt: skip
    comfy.expect(panel(comfy, inspector).get_by_text(EMPTY)).to_be_hidden()
    comfy.expect(panel(comfy, inspector).locator(".cell.framed")).to_have_count(3)
    comfy.expect(panel(comfy, inspector).locator(".ring")).to_have_count(2)
    assert [box(comfy, inspector, frame).locator(".ring").count() for frame in range(5)] == [1, 1, 0, 0, 0]


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


def test_of_a_weak_key_less_is_known(comfy, inspector, told):
    strongest = told["strongest"]
    weakest = int(codes_of(comfy, told, 0, 8, 0).argmin())
    over(comfy, inspector, weakest)
    readout(
        comfy, inspector, re.compile(rf"^token {weakest} · .+ · 0\.\d × uniform, 0\.\d+ % of all attention$"),
        f"participation ratio and norms are kept of a head's {strongest} strongest keys only",
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


def test_one_prompt_needs_no_choice(comfy, inspector):
    ran(comfy, inspector, make(comfy, branches=("cond",)))
    comfy.expect(panel(comfy, inspector).get_by_role("gridcell")).to_have_count(LAYERS * HEADS)
    comfy.expect(panel(comfy, inspector).get_by_role("button")).to_have_count(0)


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

"""The page in another language: the texts of locales/ are what is seen, and the pack's scripts work as ever."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from comfyui.installation import PACK

if TYPE_CHECKING:
    from .comfy_page import ComfyPage

TEXTS = json.loads((PACK / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
CATEGORIES = json.loads((PACK / "locales" / "zh" / "main.json").read_text(encoding="utf-8"))["nodeCategories"]


@pytest.fixture(scope="module", params=["canvas", "vue"])
def chinese_page(request, browser, server) -> Iterator[ComfyPage]:
    """A page of its own: the language is read as it opens."""
    from .comfy_page import ComfyPage

    server.post("/settings/Comfy.TutorialCompleted", True)
    server.post("/settings/Comfy.VueNodes.Enabled", request.param == "vue")
    server.post("/settings/Comfy.Locale", "zh")
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    try:
        comfy = ComfyPage(context.new_page(), server)
        comfy.open()
        yield comfy
        assert comfy.complaints == []
    finally:
        server.post("/settings/Comfy.Locale", "en")
        context.close()


@pytest.fixture
def chinese(chinese_page) -> ComfyPage:
    chinese_page.empty()
    return chinese_page


#: What the page shows of a node's slots, by name.
SHOWN = """(id) => [vdit.node(id).inputs, vdit.node(id).outputs].map((slots) =>
    slots.map((slot) => [slot.name, slot.label ?? slot.localized_name]))"""


def hover(comfy: ComfyPage, node: int, x: str, y: str) -> None:
    """Rest the mouse on a place of a node, given from its corner."""
    place = comfy.js(
        f"""(id) => {{
            const node = vdit.node(id);
            const [x, y] = app.canvas.convertOffsetToCanvas([node.pos[0] + {x}, node.pos[1] + {y}]);
            const {{ left, top }} = app.canvas.canvas.getBoundingClientRect();
            return [left + x, top + y];
        }}""",
        node,
    )
    comfy.page.mouse.move(place[0] - 3, place[1])
    comfy.page.mouse.move(*place)


def test_a_node_has_its_texts_of_the_language(chinese):
    comfy, texts = chinese, TEXTS["VDiT_TransferAttention"]
    node = comfy.add("VDiT_TransferAttention", x=200)
    shown = comfy.page.locator(f"[data-node-id='{node}']").inner_text() if comfy.vue else "\n".join(comfy.written())
    for text in (texts["display_name"], texts["inputs"]["store"]["name"], texts["outputs"]["0"]["name"]):
        assert text in shown
    tooltip = comfy.page.locator(".p-tooltip-text" if comfy.vue else ".node-tooltip")
    hover(comfy, node, "60", "-12")
    comfy.expect(tooltip).to_have_text(texts["description"])
    comfy.page.mouse.move(700, 950)
    comfy.expect(tooltip).to_be_hidden()
    strength = texts["inputs"]["strength"]
    if comfy.vue:
        comfy.page.get_by_text(strength["name"], exact=True).hover()
    else:
        hover(comfy, node, "60", "node.widgets.find(({ name }) => name === 'strength').last_y + 10")
    comfy.expect(tooltip).to_have_text(strength["tooltip"])


def test_every_node_has_its_title_and_its_category(chinese):
    ours = chinese.js("""() => Object.entries(LiteGraph.registered_node_types)
        .filter(([name]) => name.startsWith("VDiT_"))
        .map(([name, { title, category }]) => [name, [title, category]])""")
    english = {name: schema["category"] for name, schema in chinese.server.get("/object_info").items()}
    wanted = {
        name: [text["display_name"], "/".join(CATEGORIES[part] for part in english[name].split("/"))]
        for name, text in TEXTS.items()
    }
    assert dict(ours) == wanted


def test_the_packs_scripts_find_inputs_by_their_names_in_any_language(chinese):
    mask = chinese.add("VDiT_LayerMask", mask="none", layers=9)
    chinese.cell(mask, 4).click()
    chinese.wait_for_value(mask, "4")
    chinese.enter(mask, "layers", 12)
    chinese.expect(chinese.cells(mask).locator(".cell")).to_have_count(12)


def test_every_input_and_output_has_its_name(chinese):
    for kind, texts in TEXTS.items():
        inputs, outputs = chinese.js(SHOWN, chinese.add(kind))
        texts = {"inputs": {}} | texts
        # The page adds one behind a seed.
        assert {name: text["name"] for name, text in texts["inputs"].items()} == {
            name: shown for name, shown in inputs if name != "control_after_generate"
        }
        assert [text["name"] for text in texts["outputs"].values()] == [shown for _, shown in outputs]


def test_a_workflow_from_an_english_page_is_chinese_but_for_what_the_user_named(chinese):
    node = chinese.add("VDiT_LiveTransfer")
    saved = chinese.workflow()
    for slot in saved["nodes"][0]["inputs"]:
        slot["label"] = {"source": "source prompt", "target": "a dog", "target_2": "target prompt 2"}.get(slot["name"])
    chinese.load(saved)
    texts = TEXTS["VDiT_LiveTransfer"]["inputs"]
    shown = dict(chinese.js(SHOWN, node)[0])
    assert (shown["source"], shown["target"]) == (texts["source"]["name"], "a dog")
    assert shown["target_2"] == texts["target_2"]["name"]

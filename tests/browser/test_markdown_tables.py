"""Preview as Text shows the pack's tables as Markdown, and other texts as before."""

from __future__ import annotations

from typing import Any

MODE_WIDGET = "(id) => app.rootGraph.getNodeById(id).widgets.find((widget) => /preview_?mode/i.test(widget.name))"
MODE = f"(id) => ({MODE_WIDGET})(id)?.value"


def preview(comfy: Any, kind: str, output: str) -> int:
    source, shown = comfy.add(kind), comfy.add("PreviewAny", x=500)
    comfy.connect(source, output, shown, "source")
    return shown


def test_a_table_of_this_pack(comfy):
    assert comfy.js(MODE, preview(comfy, "VDiT_LayerSweep", "scores")) is True


def test_a_text_of_another_node(comfy):
    assert not comfy.js(MODE, preview(comfy, "StringConcatenate", "STRING"))


def test_an_opened_workflow(comfy):
    shown = preview(comfy, "VDiT_LayerSweep", "scores")
    workflow = comfy.workflow()
    comfy.empty()
    comfy.load(workflow)
    assert comfy.js(MODE, shown) is True


def test_who_wants_plain_text_has_it(comfy):
    """The choice is the page's own switch: what one chooses stays."""
    shown = preview(comfy, "VDiT_LayerSweep", "scores")
    comfy.js(f"(id) => {{ ({MODE_WIDGET})(id).value = false }}", shown)
    comfy.draw()
    assert comfy.js(MODE, shown) is False

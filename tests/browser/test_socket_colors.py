"""The pack's sockets and links have colours of their own, in every theme."""

from __future__ import annotations

import pytest

TYPES = ("ATTENTION_STORE", "ATTENTION_RECORDER", "LAYER_MASK", "HEAD_MASK", "SPARSE_PROFILE", "SINK_RECORD", "SINKS")

COLORS = """(types) => types.map((type) => [
  app.canvas.default_connection_color_byType[type],
  app.canvas.constructor.link_type_colors[type],
  getComputedStyle(document.documentElement).getPropertyValue(`--color-datatype-${type}`).trim(),
])"""


@pytest.mark.parametrize("theme", ["dark", "light", "nord"])
def test_sockets_and_links_have_their_colors(comfy, theme):
    choose = "(theme) => app.extensionManager.setting.set('Comfy.ColorPalette', theme)"
    comfy.js(choose, theme)
    try:
        colors = comfy.js(COLORS, TYPES)
    finally:
        comfy.js(choose, "dark")
    for slots, links, variable in colors:
        assert slots == links == variable
        assert slots.startswith("#")
    assert len({slots for slots, _, _ in colors}) == len(TYPES)

"""The Sink Inspector's panel as its tests see it: made-up runs, and its parts by layer, head, frame and token."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from . import sink_folder

if TYPE_CHECKING:
    from playwright.sync_api import Locator

EMPTY = "Run to see where the attention goes."
LAYERS, HEADS, STEPS, GRID = 9, 2, 4, (5, 8, 8)
TOKENS = 320


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


def codes_of(comfy, told: dict[str, Any], call: int, layer: int, head: int) -> np.ndarray:
    file = comfy.server.base / "temp" / told["folder"] / f"layer-{layer:02}.mass"
    return np.fromfile(file, np.uint8).reshape(-1, HEADS, TOKENS)[call, head]

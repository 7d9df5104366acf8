"""How fast the Sink Inspector's panel is in Chromium, at the size of Wan2.1-1.3B: 30 layers x 12 heads, 20 steps,
21 x 30 x 52 = 32,760 tokens, made-up masses in 240 MB of files, with pictures.

    .venv/bin/python benchmarks/sink_panel.py [--clicks 60]

A ComfyUI is started as the browser tests do (tests/browser/conftest.py says what is needed), and both of its renderers
are measured: from the node's JSON, as the server sends it, to the painted panel; and from a click on another head, or a
turn of the step slider, to the painted frames. Nothing is asked for twice.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from browser import sink_folder
from browser.comfy_page import ComfyPage
from browser.conftest import OPTIONS
from comfyui.installation import find
from comfyui.server import Server, serve
from playwright.sync_api import sync_playwright

FRAMES = 21

#: Counts drawn frames; `timed` is the milliseconds from a deed to the paint in which so many of them are new.
CLOCK = """
window.drawn = 0;
const { putImageData } = CanvasRenderingContext2D.prototype;
CanvasRenderingContext2D.prototype.putImageData = function (...rest) {
  window.drawn += 1;
  return putImageData.apply(this, rest);
};
const frame = () => new Promise(requestAnimationFrame);
const painted = () => new Promise((done) => {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = done;
  requestAnimationFrame(() => port2.postMessage(0));
});
window.timed = async (frames, deed) => {
  const [begin, before] = [performance.now(), window.drawn];
  deed();
  while (window.drawn < before + frames) await frame();
  await painted();
  return performance.now() - begin;
};
"""

SHOW = """([id, text, frames]) => timed(frames, () => app.api.dispatchCustomEvent("executed", {
    node: id, display_node: id, output: { vdit_sinks: [JSON.parse(text)] }, prompt_id: "made up",
}))"""

CLICK = """([layer, head, frames]) => timed(frames, () => document
    .querySelector(`.vdit-sinks [data-layer="${layer}"][data-head="${head}"]`)
    .dispatchEvent(new PointerEvent("pointerdown", { button: 0, bubbles: true })))"""

STEP = """([step, frames]) => timed(frames, () => {
    const slider = document.querySelector(".vdit-sinks .step");
    slider.value = step;
    slider.dispatchEvent(new Event("input"));
})"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clicks", type=int, default=60)
    parser.add_argument("--paints", type=int, default=5)
    options = parser.parse_args()
    comfyui = find()
    if comfyui is None:
        raise SystemExit("no ComfyUI found: set COMFYUI_PATH to a checkout")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with (
        tempfile.TemporaryDirectory() as base,
        serve(comfyui, Path(base)) as server,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=OPTIONS) as browser,
    ):
        server.post("/settings/Comfy.TutorialCompleted", True)
        told = sink_folder.write(Path(base) / "temp")
        files = sum(file.stat().st_size for file in (Path(base) / "temp" / told["folder"]).iterdir())
        print(
            f"{os.cpu_count()} cores, files of {files / 2**20:.0f} MiB, JSON of {len(json.dumps(told)) / 1024:.0f} KiB"
        )
        for renderer in ("canvas", "vue"):
            for name, times in measure(browser, server, renderer, told, options).items():
                print(
                    f"{renderer:7}{name:14} median {statistics.median(times):4.0f} ms, "
                    f"most {max(times):4.0f} ms of {len(times)}; load {os.getloadavg()[0]:.1f}"
                )


def measure(browser: Any, server: Server, renderer: str, told: dict[str, Any], options: Any) -> dict[str, list[float]]:
    server.post("/settings/Comfy.VueNodes.Enabled", renderer == "vue")
    page = browser.new_context(viewport={"width": 1400, "height": 1000}).new_page()
    comfy = ComfyPage(page, server)
    page.add_init_script(CLOCK)
    comfy.open()
    paints = []
    for _ in range(options.paints):
        comfy.empty()
        node = comfy.add("VDiT_SinkInspector", y=-150)
        paints.append(page.evaluate(SHOW, [str(node), json.dumps(told), FRAMES]))
    layers, heads = told["layers"], told["heads"]
    # Strides that share no factor with the numbers of layers and heads: no head comes twice.
    places = [(layers[7 * n % len(layers)], heads[5 * n % len(heads)]) for n in range(options.clicks)]
    clicks = [page.evaluate(CLICK, [*place, FRAMES]) for place in dict.fromkeys(places)]
    steps = [page.evaluate(STEP, [step, FRAMES]) for step in range(len(told["calls"]) - 1)]
    assert comfy.complaints == []
    page.close()
    return {"first paint": paints, "another head": clicks, "another step": steps}


if __name__ == "__main__":
    main()

"""Takes the pictures of nodes that show a run of an example workflow: python tools/screenshots.py [NAME ...].

A ComfyUI is started as the browser tests do (tests/browser/conftest.py says what is needed). Each picture shows some
nodes of an example after its run, at twice the size of the page.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser.comfy_page import ComfyPage  # noqa: E402
from browser.conftest import OPTIONS  # noqa: E402
from browser.test_examples import run  # noqa: E402
from comfyui.installation import find  # noqa: E402
from comfyui.server import serve  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402

HELP = ROOT / "web" / "docs" / "images"
MARGIN = (28, 128, 56, 12)  # px around the nodes: left, top (a pill and the pack's badge), right, bottom


@dataclass(frozen=True)
class Picture:
    """file: where it goes. example: the number of the workflow. titles: how those of
    the nodes begin that it shows; none for all."""

    file: Path
    example: str
    titles: tuple[str, ...] = ()


PICTURES = (
    Picture(HELP / "VDiT_RecordAttention.png", "1", ("Record Attention",)),
    Picture(HELP / "VDiT_SideBySide.png", "1", ("Side by Side", "Create Video", "Save Video")),
    Picture(ROOT / "docs" / "images" / "graph.png", "1"),
    Picture(HELP / "VDiT_SparseAttention.png", "10", ("Sparse Attention: by the profile",)),
    Picture(
        HELP / "VDiT_SparsityProfile.png", "10", ("Sparsity Profile", "What each head tolerates, and what it gets")
    ),
    Picture(HELP / "VDiT_SparseReport.png", "10", ("Sparse Report", "Chart", "Table")),
    Picture(HELP / "VDiT_SinkInspector.png", "12", ("Sink Inspector",)),
    Picture(HELP / "VDiT_EditFootage.png", "20", ("Edit Footage",)),
    Picture(HELP / "VDiT_DemoClip.png", "20", ("Demo Clip",)),
)

#: The box around some nodes, in the page's px; the view is moved there. Arguments: titles, scale, margins.
SHOW = """([titles, scale, [left, top, right, bottom]]) => {
    const named = (node) => titles.some((title) => node.title.startsWith(title));
    const shown = app.rootGraph.nodes.filter((node) => !titles.length || named(node));
    const low = [0, 1].map((i) => Math.min(...shown.map((node) => node.pos[i])));
    const high = [0, 1].map((i) => Math.max(...shown.map((node) => node.pos[i] + node.size[i])));
    const { ds, canvas } = app.canvas;
    const place = canvas.getBoundingClientRect();
    ds.scale = scale;
    ds.offset = [(left + 420) / scale - low[0], (top + 160) / scale - low[1]];
    app.canvas.selectNodes([]);
    app.canvas.draw(true, true);
    const size = [0, 1].map((i) => (high[i] - low[i]) * scale);
    return { x: place.x + 420, y: place.y + 160, width: size[0] + left + right, height: size[1] + top + bottom };
}"""


#: Some layers and steps dense, as the help page tells it. Argument: the title of the node.
DENSE = """(title) => {
    const { widgets } = app.rootGraph.nodes.find((node) => node.title === title);
    for (const [name, value] of [["dense_layers", "3"], ["dense_first", 10]]) {
        widgets.find((widget) => widget.name === name).value = value;
    }
}"""


def take(comfy: ComfyPage, pictures: list[Picture]) -> None:
    """All pictures of one example."""
    (workflow,) = (ROOT / "example_workflows").glob(f"{pictures[0].example} *.json")
    comfy.load(json.loads(workflow.read_text(encoding="utf-8")))
    if pictures[0].example == "10":
        comfy.js(DENSE, "Sparse Attention: by the profile")
    run(comfy)
    for picture in pictures:
        whole = not picture.titles
        box = comfy.js(SHOW, [list(picture.titles), 0.5 if whole else 1.0, (20, 60, 20, 50) if whole else MARGIN])
        comfy.page.wait_for_timeout(1500)
        comfy.page.screenshot(path=picture.file, clip=box)
        print(picture.file.relative_to(ROOT), {name: round(value) for name, value in box.items()}, flush=True)


def main(names: list[str]) -> None:
    """Take the named pictures, or all."""
    chosen = [picture for picture in PICTURES if not names or picture.file.stem in names]
    base = Path(tempfile.mkdtemp())
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with serve(find(), base) as server, sync_playwright() as playwright:
        server.post("/settings/Comfy.TutorialCompleted", True)
        server.post("/settings/Comfy.VueNodes.Enabled", False)
        server.post("/settings/Comfy.Minimap.Visible", False)
        browser = playwright.chromium.launch(executable_path=chromium, args=OPTIONS)
        context = browser.new_context(viewport={"width": 2600, "height": 1500}, device_scale_factor=2)
        comfy = ComfyPage(context.new_page(), server)
        comfy.open()
        for example in dict.fromkeys(picture.example for picture in chosen):
            take(comfy, [picture for picture in chosen if picture.example == example])


if __name__ == "__main__":
    main(sys.argv[1:])

"""The page as the tests see it: nodes by id, their text, their cells."""

from __future__ import annotations

import uuid
from io import BytesIO
from typing import Any

from comfyui.server import FOLDER_NAME, Server
from PIL import Image
from playwright.sync_api import Locator, Page, TimeoutError, expect

READY = "() => !!window.LiteGraph?.registered_node_types?.VDiT_LayerMask && !!window.app?.canvas?.graph"

#: What is written on the canvas leaves no element, so every text is noted.
NOTE_TEXTS = """
window.written = [];
const { fillText } = CanvasRenderingContext2D.prototype;
CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
  window.written.push(text);
  return fillText.call(this, text, ...rest);
};
"""

#: Frames that are asked for while the page rests are drawn when it wakes.
REST = """{
  const draw = window.requestAnimationFrame.bind(window);
  let asked = null;
  window.requestAnimationFrame = (callback) => (asked ? -asked.push(callback) : draw(callback));
  window.rest = () => { asked ??= []; };
  window.wake = () => { const frames = asked ?? []; asked = null; frames.forEach((callback) => draw(callback)); };
}"""

#: Nothing moves by itself: each frame of a badge that pulses is drawn without a graphics card.
STILL = "*, *::before, *::after { animation: none !important; transition: none !important; }"

#: The page follows its address into any open workflow: only the one in view may be open.
CLOSE_OTHERS = """async () => {
    const { workflow } = app.extensionManager;
    for (const other of [...workflow.openWorkflows]) {
        if (other !== workflow.activeWorkflow) await workflow.closeWorkflow(other);
    }
}"""

HELPERS = """
window.vdit = {
  // The graph on view first, then all others.
  node: (id) => app.canvas.graph.getNodeById(id)
    ?? [...app.rootGraph.subgraphs.values()].map((graph) => graph.getNodeById(id)).find(Boolean),
  widget: (id, name) => vdit.node(id).widgets.find((widget) => widget.name === name),
  shown: (id) => [...document.querySelectorAll(`.vdit-mask[data-node="${id}"] .cell`)]
    .map((cell) => Number(cell.ariaValueNow)),
  slot: (slots, name) => slots.findIndex((slot) => slot.name === name || String(slot.type).split(",").includes(name)),
  enter: (host) => app.canvas.openSubgraph(host.subgraph, host),
  changed: () => { app.canvas.emitBeforeChange(); app.canvas.emitAfterChange(); },
};
"""


class ComfyPage:
    """ComfyUI's page with an empty workflow, 1:1."""

    expect = staticmethod(expect)

    def __init__(self, page: Page, server: Server) -> None:
        self.page, self.server = page, server
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: self._note(message.type, message.text, message.location["url"]))

    def _note(self, kind: str, text: str, url: str) -> None:
        if kind in ("error", "warning") and (FOLDER_NAME in url or "vdit" in text.lower()):
            self.complaints.append(text)

    def open(self) -> None:
        for script in (NOTE_TEXTS, REST):
            self.page.add_init_script(script)
        self.page.goto(self.server.url)
        self.page.add_style_tag(content=STILL)
        self.page.wait_for_function(READY)
        self.page.evaluate(HELPERS)
        self.page.locator("#graph-canvas").wait_for()

    def empty(self) -> None:
        """A new workflow, and nothing left of what the last test did with mouse and view."""
        self.page.mouse.move(700, 950)
        self.load(
            {"id": str(uuid.uuid4()), "version": 0.4, "nodes": [], "links": [], "last_node_id": 0, "last_link_id": 0}
        )
        self.js("app.canvas.ds.reset(); app.canvas.ds.offset = [150, 250];")
        self.js(CLOSE_OTHERS)
        self.draw()

    def rest(self) -> None:
        """Draw nothing, which takes a tenth of a core though nothing is seen, until it is to wake."""
        self.js("() => rest()")

    def wake(self) -> None:
        self.js("() => wake()")

    @property
    def vue(self) -> bool:
        """Whether nodes are elements of the page, not drawn on the canvas."""
        return self.js("() => LiteGraph.vueNodesMode")

    def js(self, script: str, argument: Any = None) -> Any:
        return self.page.evaluate(script, argument)

    def draw(self) -> None:
        """Draw anew, and let both renderers place their elements."""
        self.js("""() => new Promise((done) => {
            app.canvas.draw(true, true);
            requestAnimationFrame(() => requestAnimationFrame(done));
        })""")

    def show_all(self) -> None:
        """Bring all nodes into view."""
        self.js("""() => {
            const edges = app.rootGraph.nodes.map(({ pos: [x, y], size: [w, h] }) => [x, y - 60, x + w, y + h]);
            const [left, top] = [0, 1].map((i) => Math.min(...edges.map((edge) => edge[i])));
            const [right, bottom] = [2, 3].map((i) => Math.max(...edges.map((edge) => edge[i])));
            const { ds, canvas } = app.canvas;
            ds.scale = Math.min(canvas.clientWidth / (right - left), canvas.clientHeight / (bottom - top));
            ds.offset = [-left, -top];
        }""")
        self.draw()

    def add(self, kind: str, x: int = 0, y: int = 0, **widgets: Any) -> int:
        node = self.js(
            """([kind, x, y]) => {
                const node = LiteGraph.createNode(kind);
                node.pos = [x, y];
                app.canvas.graph.add(node);
                return node.id;
            }""",
            [kind, x, y],
        )
        for name, value in widgets.items():
            self.enter(node, name, value)
        self.draw()
        return node

    def enter(self, node: int, name: str, value: Any) -> None:
        """Set a widget as its own input field does."""
        self.js(
            """([id, name, value]) => {
                const widget = vdit.widget(id, name);
                widget.value = value;
                widget.callback?.(value, app.canvas, vdit.node(id));
                vdit.changed();
            }""",
            [node, name, value],
        )

    def connect(self, origin: int, output: str, target: int, input_: str) -> None:
        self.js(
            """([origin, output, target, input]) => {
                const [from, to] = [vdit.node(origin), vdit.node(target)];
                from.connect(vdit.slot(from.outputs, output), to, vdit.slot(to.inputs, input));
                vdit.changed();
            }""",
            [origin, output, target, input_],
        )

    def value(self, node: int, name: str = "mask") -> Any:
        return self.js("([id, name]) => vdit.widget(id, name).value", [node, name])

    def wait_for_value(self, node: int, value: Any, name: str = "mask") -> None:
        self.page.wait_for_function(
            "([id, name, value]) => vdit.widget(id, name).value === value", arg=[node, name, value]
        )

    def cells(self, node: int) -> Locator:
        """The cells of a Layer Mask, and all that belongs to them."""
        self.js("(id) => { vdit.widget(id, 'cells').element.dataset.node = id; }", node)
        return self.page.locator(f".vdit-mask[data-node='{node}']")

    def cell(self, node: int, layer: int, head: int | None = None) -> Locator:
        of_head = "" if head is None else f"[data-head='{head}']"
        return self.cells(node).locator(f"[data-layer='{layer}']{of_head}")

    def wait_for_strengths(self, node: int, strengths: list[float]) -> None:
        """Until the cells on the page show these."""
        expect(self.cells(node).locator(".cell")).to_have_count(len(strengths))
        try:
            self.page.wait_for_function(
                "([id, strengths]) => vdit.shown(id).join() === strengths.join()", arg=[node, strengths], timeout=5000
            )
        except TimeoutError:
            shown = self.js("(id) => vdit.shown(id)", node)
            raise AssertionError(f"The cells show {shown}, not {strengths}.") from None

    def workflow(self) -> dict[str, Any]:
        """What would be saved now."""
        return self.js("() => JSON.parse(JSON.stringify(app.rootGraph.serialize()))")

    def load(self, workflow: dict[str, Any]) -> None:
        self.js("(workflow) => app.loadGraphData(workflow)", workflow)
        self.draw()

    def of_type(self, kind: str) -> list[int]:
        """The nodes of a type in the graph on view."""
        return self.js(
            "(kind) => app.canvas.graph.nodes.filter((node) => node.type === kind).map((node) => node.id)", kind
        )

    def written(self) -> list[str]:
        """The texts on the canvas as it is drawn now."""
        return self.js("() => { window.written = []; app.canvas.draw(true, true); return window.written; }")

    def color_above(self, node: int, lift: int = 12) -> tuple[int, int, int]:
        """What the user sees so many px above the node's title, at its left: its pill, if it has one."""
        self.draw()
        x, y = self.js(
            """([id, lift]) => {
                const [x, y] = app.canvas.convertOffsetToCanvas(vdit.node(id).pos);
                const { left, top } = app.canvas.canvas.getBoundingClientRect();
                return [left + x + 4, top + y - LiteGraph.NODE_TITLE_HEIGHT - lift];
            }""",
            [node, lift],
        )
        picture = self.page.screenshot(clip={"x": x, "y": y, "width": 1, "height": 1})
        return Image.open(BytesIO(picture)).convert("RGB").getpixel((0, 0))

    def send(self, event: str, detail: Any) -> None:
        """As if the server had sent it."""
        self.js("([event, detail]) => app.api.dispatchEvent(new CustomEvent(event, { detail }))", [event, detail])

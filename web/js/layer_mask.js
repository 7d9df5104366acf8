// Cells (layer_cells.js) beside the text of a layer mask. The text is what is saved and sent.

import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";
import { after } from "./after.js";
import { LayerCells } from "./layer_cells.js";
import { layersFor } from "./layer_count.js";

// The nodes that have such a text, and what it is called.
const TEXTS = { VDiT_LayerMask: "mask", VDiT_SparseAttention: "dense_layers", VDiT_SparseReport: "dense_layers" };
const WIDTH = 300;
const refreshers = new Map();
let made = 0;

app.registerExtension({
  name: "vdit.LayerMask",
  init() {
    const href = new URL("../css/layer_mask.css", import.meta.url).href;
    document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href }));
  },
  setup() {
    // A mask's number of layers may change with any link or file name far up the graph.
    api.addEventListener("graphChanged", refreshAll);
  },
  nodeCreated(node) {
    if (node.comfyClass in TEXTS) addCells(node, TEXTS[node.comfyClass]);
  },
  afterConfigureGraph: refreshAll,
});

function refreshAll() {
  for (const refresh of refreshers.values()) refresh();
}

function addCells(node, name) {
  const text = node.widgets.find((widget) => widget.name === name);
  const layers = node.widgets.find(({ name }) => name === "layers");
  const cells = new LayerCells((written) => {
    text.value = written;
    text.callback?.(written, app.canvas, node);
    rememberSoon();
  });
  // Vue nodes keep a widget's element as long as node, name and type are the same. But an undo makes the node anew, with
  // an element that would then never be shown: so no two types are the same.
  const widget = node.addDOMWidget("cells", `vdit_layer_cells_${made++}`, cells.element, {
    serialize: false,
    margin: 6,
    getMinHeight: () => cells.height + 2 * widget.margin,
  });
  // Not in the workflow either: a widget's options only keep it out of the prompt.
  widget.serialize = false;

  const refresh = () => {
    const { layers, kinds, assumed } = layersFor(node);
    const linked = node.inputs?.some((input) => input.name === name && input.link != null);
    const note = linked ? "the text comes from the link" : assumed ? `${layers} layers assumed` : "";
    fitting(node, cells, () => cells.show({ text: String(text.value), layers, kinds, note, locked: linked }));
    node.setDirtyCanvas(true, true);
  };
  after(text, "callback", refresh);
  if (layers) after(layers, "callback", refresh);
  for (const event of ["onConfigure", "onConnectionsChange", "onPropertyChanged"]) after(node, event, refresh);
  after(node, "onAdded", () => refreshers.set(node, refresh));
  after(node, "onRemoved", () => refreshers.delete(node));
  refresh();
  node.setSize([Math.max(node.size[0], WIDTH), node.computeSize()[1]]);
}

/** A node that was no higher than its cells needed stays so when their number changes; one drawn higher is left so. */
function fitting(node, cells, change) {
  const drawn = LiteGraph.vueNodesMode ? cells.element.offsetHeight : 0;
  const snug = drawn ? drawn <= cells.height + 1 : node.size[1] <= node.computeSize()[1] + 1;
  const before = cells.height;
  change();
  const least = node.computeSize()[1];
  if (node.size[1] < least || (snug && cells.height < before)) node.setSize([node.size[0], least]);
}

let remembering;

/** One step to undo for a stroke or a turn of the wheel, not one for every cell. */
function rememberSoon() {
  clearTimeout(remembering);
  remembering = setTimeout(() => {
    app.canvas.emitBeforeChange();
    app.canvas.emitAfterChange();
  }, 300);
}

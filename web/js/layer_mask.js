// Cells (mask_cells.js) beside the text of a layer mask or a head mask. The text is what is saved and sent.

import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";
import { after } from "./after.js";
import { addElement } from "./element_widget.js";
import { headForm } from "./head_cells.js";
import { layerForm } from "./layer_cells.js";
import { shapeFor } from "./layer_count.js";
import { MaskCells } from "./mask_cells.js";

// The nodes that have such a text, what it is called, and the form of its cells.
const TEXTS = {
  VDiT_LayerMask: ["mask", layerForm],
  VDiT_HeadMask: ["mask", headForm],
  VDiT_SparseAttention: ["dense_layers", layerForm],
  VDiT_SparseReport: ["dense_layers", layerForm],
};
const refreshers = new Map();

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
    if (node.comfyClass in TEXTS) addCells(node, ...TEXTS[node.comfyClass]);
  },
  afterConfigureGraph: refreshAll,
});

function refreshAll() {
  for (const refresh of refreshers.values()) refresh();
}

function addCells(node, name, form) {
  const text = node.widgets.find((widget) => widget.name === name);
  const counts = node.widgets.filter(({ name }) => name === "layers" || name === "heads");
  const cells = new MaskCells(form, (written) => {
    text.value = written;
    text.callback?.(written, app.canvas, node);
    rememberSoon();
  });
  addElement(node, "cells", cells.element, () => cells.height);

  const refresh = () => {
    const { kinds, assumed, ...counted } = shapeFor(node);
    const shape = { layers: counted.layers, ...(form === headForm && { heads: counted.heads }) };
    const unknown = assumed.filter((what) => what in shape).map((what) => `${shape[what]} ${what}`);
    const linked = node.inputs?.some((input) => input.name === name && input.link != null);
    const note = linked ? "the text comes from the link" : unknown.length ? `${unknown.join(", ")} assumed` : "";
    fitting(node, cells, () => cells.show({ text: String(text.value), ...shape, kinds, note, locked: linked }));
    node.setDirtyCanvas(true, true);
  };
  after(text, "callback", refresh);
  for (const count of counts) after(count, "callback", refresh);
  for (const event of ["onConfigure", "onConnectionsChange", "onPropertyChanged"]) after(node, event, refresh);
  after(node, "onAdded", () => refreshers.set(node, refresh));
  after(node, "onRemoved", () => refreshers.delete(node));
  refresh();
  node.setSize([Math.max(node.size[0], cells.width), node.computeSize()[1]]);
}

/** A node that was no higher than its cells needed stays so when their number changes; one drawn higher is left so. */
function fitting(node, cells, change) {
  const drawn = LiteGraph.vueNodesMode ? cells.element.offsetHeight : 0;
  const snug = drawn ? drawn <= cells.height + 1 : node.size[1] <= node.computeSize()[1] + 1;
  const before = cells.height;
  change();
  const [width, least] = [Math.max(node.size[0], cells.width), node.computeSize()[1]];
  if (node.size[1] < least || (snug && cells.height < before)) node.setSize([width, least]);
  else if (node.size[0] < width) node.setSize([width, node.size[1]]);
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

// What the pack's nodes did in their last run ("replaced 240 of 240 calls"), written above them. Sent by nodes/report.py.

import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";
import { nodesOnPath, origins, slotsOf } from "./graph_walk.js";
import { FOUND } from "./layer_count.js";
import { drawPills } from "./report_pill.js";

// By workflow and running node, since an undo makes all nodes anew. None of this is part of the workflow.
const reports = new Map();

app.registerExtension({
  name: "vdit.Report",
  setup() {
    api.addEventListener("vdit.report", ({ detail }) => take(detail));
    api.addEventListener("execution_start", () => setOld(true));
    api.addEventListener("executing", ({ detail }) => forget((report) => report.id === String(detail)));
    // What did not run again is as it was; after a run that broke off nobody knows.
    api.addEventListener("execution_success", () => setOld(false));
    api.addEventListener("execution_error", () => forget((report) => report.old));
    api.addEventListener("execution_interrupted", () => forget((report) => report.old));
    drawWithCanvas();
  },
});

function take({ node: id, text, good, layers }) {
  const node = nodesOnPath(app.rootGraph, id).at(-1);
  if (!node?.comfyClass?.startsWith("VDiT_")) return;
  reports.set(`${app.rootGraph.id} ${id}`, { workflow: app.rootGraph.id, id: String(id), text, good, old: false });
  if (layers) tellLayers(node, layers);
  redraw();
}

/** Note the number of layers at the node and at the layer masks that feed it. */
function tellLayers(node, layers) {
  const masks = slotsOf("LAYER_MASK", node.inputs).flatMap((slot) => [...origins(node, slot)]);
  for (const each of [node, ...masks.map((origin) => origin.node)]) each.setProperty(FOUND, layers);
}

function setOld(old) {
  for (const report of reports.values()) report.old = old;
  redraw();
}

function forget(which) {
  for (const [key, report] of reports) if (which(report)) reports.delete(key);
  redraw();
}

function redraw() {
  app.canvas.setDirty(true, false);
}

// Both renderers draw the canvas; nodes of the newer one are elements above it, but the place over a title is free.
function drawWithCanvas() {
  const { onDrawForeground } = app.canvas;
  app.canvas.onDrawForeground = function (context, ...rest) {
    onDrawForeground?.call(this, context, ...rest);
    const shown = [...reports.values()].map((report) => ({ ...report, node: nodeFor(report, this.graph) }));
    drawPills(context, shown.filter(({ node }) => node && this.isNodeVisible(node)));
  };
}

/** The node of the graph on view to write it at: its own, or the subgraph that hides it if something went wrong. */
function nodeFor(report, graph) {
  if (report.workflow !== app.rootGraph.id) return undefined;
  const path = nodesOnPath(app.rootGraph, report.id);
  const at = path.findIndex((node) => node.graph === graph);
  return at === path.length - 1 || !report.good ? path[at] : undefined;
}

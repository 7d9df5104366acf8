// What the pack's nodes did in their last run ("replaced 240 of 240 calls"), written above them. Sent by nodes/outcomes.py.
//
// A report tells of the execution of one node: its own, or that of the sampler which ran its model. It stays as long as
// the last prompt holds that node with the same graph before it: then it was not executed again, and said nothing new.

import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";
import { nodesOnPath, origins, slotsOf } from "./graph_walk.js";
import { FOUND, HEADS, KINDS, MASKS } from "./layer_count.js";
import { behindChanged, signature } from "./prompt_graph.js";
import { drawPills, isLevel } from "./report_pill.js";

// For each workflow the prompt of it that runs, if one does, and the last report of each of its nodes; by id, since an undo
// makes all nodes anew. The texts are no part of the workflow; only the number of layers, their kinds, and that of heads stay with its nodes.
const workflows = new Map();
// Which workflow a prompt is of, by id: while it runs, another may be open.
const workflowOf = new Map();
// What was queued, by the prompt's id: the graph in API form, until the prompt has ended.
const graphs = new Map();
let running = { prompt: null, ran: [] };

app.registerExtension({
  name: "vdit.Report",
  setup() {
    noteWhatIsQueued();
    api.addEventListener("vdit.report", ({ detail }) => take(detail));
    api.addEventListener("execution_start", ({ detail }) => {
      running = { prompt: detail.prompt_id, ran: [] };
      settle();
    });
    api.addEventListener("executing", ({ detail }) => {
      running.ran.push(String(detail));
      settle();
    });
    api.addEventListener("execution_success", ({ detail }) => end(detail.prompt_id, true));
    for (const broken of ["execution_error", "execution_interrupted"]) {
      api.addEventListener(broken, ({ detail }) => end(detail.prompt_id, false));
    }
    drawWithCanvas();
  },
  afterConfigureGraph: tellLayers,
});

function noteWhatIsQueued() {
  const { queuePrompt } = api;
  api.queuePrompt = async function (number, graph, ...rest) {
    const answer = await queuePrompt.call(this, number, graph, ...rest);
    if (answer?.prompt_id) {
      workflowOf.set(answer.prompt_id, graph.workflow?.id);
      graphs.set(answer.prompt_id, graph.output);
    }
    settle();
    return answer;
  };
}

/** A report of a node, of whatever workflow, open or not. */
function take({ workflow, prompt, node, text, level, good, layers, heads, kinds, by }) {
  if (!workflow) return;
  if (!isLevel(level)) level = good ? "done" : "partly";
  workflowOf.set(prompt, workflow);
  settle();
  const { reports } = stateOf(workflow);
  reports.delete(String(node));
  reports.set(String(node), { id: String(node), by: String(by ?? node), text, level, layers, heads, kinds, prompt });
  tellLayers();
  redraw();
}

function stateOf(workflow) {
  if (!workflows.has(workflow)) workflows.set(workflow, { running: null, reports: new Map() });
  return workflows.get(workflow);
}

/** What is executed again has nothing to report yet. The answer that tells the workflow may come after its first nodes. */
function settle() {
  const workflow = workflowOf.get(running.prompt);
  if (!workflow) return;
  const state = stateOf(workflow);
  state.running = running.prompt;
  const ran = new Set(running.ran.splice(0));
  const graph = graphs.get(running.prompt);
  for (const report of state.reports.values()) {
    if (report.prompt === running.prompt) continue;
    if (ran.has(report.id) || ran.has(report.by) || (graph && behindChanged(report, graph))) state.reports.delete(report.id);
  }
  redraw();
}

/** What did not run again is as it was; after a run that broke off nobody knows. */
function end(prompt, well) {
  settle();
  running = { prompt: null, ran: [] };
  const state = stateOf(workflowOf.get(prompt));
  state.running = null;
  for (const report of well ? [] : state.reports.values()) {
    if (report.prompt !== prompt) state.reports.delete(report.id);
  }
  for (const report of state.reports.values()) {
    if (report.prompt === prompt) report.signature = signature(graphs.get(prompt), report.by);
  }
  workflowOf.delete(prompt);
  graphs.delete(prompt);
  redraw();
}

/** The reports of the open workflow, each with the nodes on the way to the one that it is of. */
function reportsHere() {
  const state = stateOf(app.rootGraph.id);
  return [...state.reports.values()]
    .map((report) => ({
      ...report,
      path: nodesOnPath(app.rootGraph, report.id),
      old: state.running !== null && report.prompt !== state.running,
    }))
    .filter(({ path }) => path.at(-1)?.comfyClass?.startsWith("VDiT_"));
}

/** Note the number of layers and heads at the nodes that know it and at the masks that feed them. */
function tellLayers() {
  for (const { path, layers, heads, kinds } of reportsHere()) {
    if (!layers) continue;
    const node = path.at(-1);
    const masks = slotsOf(MASKS, node.inputs).flatMap((slot) => [...origins(node, slot)]);
    for (const each of [node, ...masks.map((origin) => origin.node)]) {
      if (kinds?.length) each.setProperty(KINDS, kinds);
      if (heads && each.properties[HEADS] !== heads) each.setProperty(HEADS, heads);
      if (each.properties[FOUND] !== layers) each.setProperty(FOUND, layers);
    }
  }
}

function redraw() {
  app.canvas.setDirty(true, false);
}

// Both renderers draw the canvas; nodes of the newer one are elements above it, but the place over a title is free.
function drawWithCanvas() {
  const { onDrawForeground } = app.canvas;
  app.canvas.onDrawForeground = function (context, ...rest) {
    onDrawForeground?.call(this, context, ...rest);
    const shown = reportsHere().map((report) => ({ ...report, node: nodeFor(report, this.graph) }));
    drawPills(context, shown.filter(({ node }) => node && this.isNodeVisible(node)));
  };
}

/** The node of the graph on view to write it at: its own, or the subgraph that hides it if something went wrong. */
function nodeFor({ path, level }, graph) {
  const at = path.findIndex((node) => node.graph === graph);
  return at === path.length - 1 || level === "partly" || level === "failed" ? path[at] : undefined;
}

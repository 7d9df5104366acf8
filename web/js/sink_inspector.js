// The panel (sink_panel.js) in the Sink Inspector: it shows what the node's last run gave, as long as the page knows it.

import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";
import { after } from "./after.js";
import { addElement } from "./element_widget.js";
import { SinkPanel } from "./sink_panel.js";

const SIZE = [680, 840];
const refreshers = new Map();

app.registerExtension({
  name: "vdit.SinkInspector",
  init() {
    const href = new URL("../css/sink_panel.css", import.meta.url).href;
    document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href }));
  },
  nodeCreated(node) {
    if (node.comfyClass === "VDiT_SinkInspector") addPanel(node);
  },
  // An undo makes all nodes anew; another workflow has other results. What came of a run is the page's to keep.
  afterConfigureGraph: refreshAll,
  onNodeOutputsUpdated: refreshAll,
});

function refreshAll() {
  for (const refresh of refreshers.values()) refresh();
}

function addPanel(node) {
  const panel = new SinkPanel();
  addElement(node, "panel", panel.element, () => panel.height);

  const refresh = () => {
    const told = resultOf(node);
    if (told?.folder === panel.told?.folder) return;
    panel.show(told, (file, options) => api.fetchApi(address(told, file), options), (file) => api.apiURL(address(told, file)));
    const least = node.computeSize()[1];
    if (node.size[1] < least) node.setSize([node.size[0], least]);
    node.setDirtyCanvas(true, true);
  };
  after(node, "onExecuted", refresh);
  after(node, "onAdded", () => refreshers.set(node, refresh));
  after(node, "onRemoved", () => refreshers.delete(node));
  node.setSize([Math.max(node.size[0], SIZE[0]), Math.max(node.size[1], SIZE[1])]);
}

/** What nodes/sink_pieces.py said about the node's last run; null if the page has none. */
function resultOf(node) {
  const locator = node.graph?.isRootGraph === false ? `${node.graph.id}:${node.id}` : node.id;
  return app.nodeOutputs?.[locator]?.vdit_sinks?.[0] ?? null;
}

function address({ folder }, file) {
  return `/view?${new URLSearchParams({ filename: file, subfolder: folder, type: "temp" })}`;
}

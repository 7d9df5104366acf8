// Preview as Text opens as plain text. Where it shows a table of this pack, it opens as Markdown.

import { app } from "/scripts/app.js";
import { everyNode } from "./graph_walk.js";

const KIND = "PreviewAny";
const MODE = /^preview_?mode$/i;

app.registerExtension({
  name: "vdit.MarkdownTables",
  nodeCreated(node) {
    if (node.comfyClass !== KIND) return;
    const changed = node.onConnectionsChange;
    node.onConnectionsChange = function (...args) {
      changed?.apply(this, args);
      showMarkdown(this);
    };
  },
  afterConfigureGraph() {
    for (const node of everyNode(app.rootGraph ?? app.graph)) showMarkdown(node);
  },
});

function showMarkdown(node) {
  if (node.comfyClass !== KIND || !node.getInputNode?.(0)?.comfyClass?.startsWith("VDiT_")) return;
  const mode = node.widgets?.find((widget) => MODE.test(widget.name));
  if (!mode || mode.value === true) return;
  mode.value = true;
  mode.callback?.(true);
}

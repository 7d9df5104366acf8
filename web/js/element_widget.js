// A widget that is an element of ours. It belongs on its node and nowhere else.

import { app } from "/scripts/app.js";

const MARGIN = 6;
let made = 0;

/** Add the element to a node as a widget; height: a function to the least that it needs. */
export function addElement(node, name, element, height) {
  // Vue nodes keep a widget's element as long as node, name and type are the same. But an undo makes the node anew, with
  // an element that would then never be shown: so no two types are the same.
  const widget = node.addDOMWidget(name, `vdit_${name}_${made++}`, element, {
    serialize: false,
    margin: MARGIN,
    getMinHeight: () => height() + 2 * MARGIN,
    // The properties panel cannot show the element: it would have a row with the name and nothing below.
    hideInPanel: true,
  });
  // Not in the workflow either: a widget's options only keep it out of the prompt.
  widget.serialize = false;
  // The panel of a subgraph asks for another option, which hides a widget from Vue nodes too: true while no node shows it.
  Object.defineProperty(widget.options, "canvasOnly", { get: () => node.graph !== app.canvas.graph, enumerable: true });
  // Frontends before 1.45 have the row, as all have for a favorite. Its drawing leaves the row's width with the widget, and
  // the element on the node would take it too (Comfy-Org/ComfyUI_frontend#13068). An element is as wide as its node.
  Object.defineProperty(widget, "width", { get: () => undefined, set: () => {} });
}

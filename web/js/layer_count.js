// How many layers the model has that a layer mask is for, as far as the graph tells.

import { consumers, origins, slotsOf } from "./graph_walk.js";

/** Where a run leaves the number of layers that it found (report.js). */
export const FOUND = "vdit_layers";

const DEMO = "VDiT_DemoModel";
const ASSUMED = 30;
// Wan's sizes in file names; not the 5B of "1.5B", nor "14bit".
const SIZES = [
  [/(?<!\d\.?)14b(?![a-z])/i, 40],
  [/(?<!\d\.?)1[._]3b(?![a-z])/i, 30],
  [/(?<!\d\.?)5b(?![a-z])/i, 30],
];

/** { layers, assumed }: from the widget, else the model, else an earlier run; assumed if nothing tells. */
export function layersFor(node) {
  const given = Number(node.widgets?.find(({ name }) => name === "layers")?.value);
  const ofModel = () => ofModelInto(node, new Set()) ?? ofModelUsing(node, new Set());
  const layers = given > 0 ? given : (ofModel() ?? node.properties?.[FOUND]);
  return { layers: layers ?? ASSUMED, assumed: layers === undefined };
}

/** Down from a mask to the nodes that use it, and from each up to its model. */
function ofModelUsing(node, seen) {
  for (const slot of slotsOf("LAYER_MASK", node.outputs)) {
    for (const user of consumers(node, slot)) {
      if (seen.has(user)) continue;
      seen.add(user);
      const layers = ofModelInto(user, new Set()) ?? ofModelUsing(user, seen);
      if (layers) return layers;
    }
  }
  return undefined;
}

function ofModelInto(node, seen) {
  for (const slot of slotsOf("MODEL", node.inputs)) {
    for (const { node: origin } of origins(node, slot)) {
      if (seen.has(origin)) continue;
      seen.add(origin);
      const layers = ofModelInto(origin, seen) ?? ofLoader(origin);
      if (layers) return layers;
    }
  }
  return undefined;
}

function ofLoader(node) {
  if (node.comfyClass === DEMO) return 9;
  const names = (node.widgets ?? []).map(({ value }) => value).filter((value) => typeof value === "string");
  return SIZES.find(([size]) => names.some((name) => size.test(name)))?.[1];
}

// How many layers the model has that a layer mask is for, as far as the graph tells.

import { consumers, origins, slotsOf } from "./graph_walk.js";

/** Where a run leaves the number of layers that it found, and their kinds (report.js). */
export const FOUND = "vdit_layers";
export const KINDS = "vdit_kinds";

const DEMO = "VDiT_DemoModel";
const ASSUMED = 30;
// What file names tell: other families first, whose sizes are not Wan's.
const NAMES = [
  [/hunyuan.?video.?1[._]5/i, { layers: 54, kinds: [] }],
  [/hunyuan.?video/i, { layers: 60, kinds: [["double", 20], ["single", 40]] }],
  [/mochi/i, { layers: 48, kinds: [] }],
  [/cogvideox.*2b(?![a-z])/i, { layers: 30, kinds: [] }],
  [/cogvideox/i, { layers: 42, kinds: [] }],
  [/ltx.?(video|v).*(?<!1\d\.?)2b(?![a-z])/i, { layers: 28, kinds: [] }],
  [/ltx/i, { layers: 48, kinds: [] }],
  [/cosmos.?predict2.*14b/i, { layers: 36, kinds: [] }],
  [/cosmos.?predict2.*2b/i, { layers: 28, kinds: [] }],
  [/kandinsky5.*pro/i, { layers: 60, kinds: [] }],
  [/kandinsky5.*lite/i, { layers: 32, kinds: [] }],
  [/vace.*14b(?![a-z])/i, { layers: 48, kinds: [["main", 40], ["vace", 8]] }],
  [/vace.*1[._]3b(?![a-z])/i, { layers: 45, kinds: [["main", 30], ["vace", 15]] }],
  // Wan's sizes; not the 5B of "1.5B", nor "14bit".
  [/(?<!\d\.?)14b(?![a-z])/i, { layers: 40, kinds: [] }],
  [/(?<!\d\.?)1[._]3b(?![a-z])/i, { layers: 30, kinds: [] }],
  [/(?<!\d\.?)5b(?![a-z])/i, { layers: 30, kinds: [] }],
];

/**
 * { layers, kinds, assumed }: from the widget, else the model, else an earlier run; assumed if nothing tells.
 * kinds: of a model with several kinds of blocks each kind's name and number.
 */
export function layersFor(node) {
  const given = Number(node.widgets?.find(({ name }) => name === "layers")?.value);
  const ofModel = ofModelInto(node, new Set()) ?? ofModelUsing(node, new Set());
  const ofRun = node.properties?.[FOUND] && { layers: node.properties[FOUND], kinds: node.properties[KINDS] ?? [] };
  const known = [ofModel, ofRun].filter(Boolean);
  if (given > 0) return { layers: given, kinds: known.find(({ layers }) => layers === given)?.kinds ?? [], assumed: false };
  return { ...(known[0] ?? { layers: ASSUMED, kinds: [] }), assumed: !known.length };
}

/** Down from a mask to the nodes that use it, and from each up to its model. */
function ofModelUsing(node, seen) {
  for (const slot of slotsOf("LAYER_MASK", node.outputs)) {
    for (const user of consumers(node, slot)) {
      if (seen.has(user)) continue;
      seen.add(user);
      const model = ofModelInto(user, new Set()) ?? ofModelUsing(user, seen);
      if (model) return model;
    }
  }
  return undefined;
}

function ofModelInto(node, seen) {
  for (const slot of slotsOf("MODEL", node.inputs)) {
    for (const { node: origin } of origins(node, slot)) {
      if (seen.has(origin)) continue;
      seen.add(origin);
      const model = ofModelInto(origin, seen) ?? ofLoader(origin);
      if (model) return model;
    }
  }
  return undefined;
}

function ofLoader(node) {
  if (node.comfyClass === DEMO) return { layers: 9, kinds: [] };
  const names = (node.widgets ?? []).map(({ value }) => value).filter((value) => typeof value === "string");
  return NAMES.find(([pattern]) => names.some((name) => pattern.test(name)))?.[1];
}

// How many layers and heads the model has that a mask is for, as far as the graph tells.

import { consumers, origins, slotsOf } from "./graph_walk.js";

/** The types of masks, as an input for either has them. */
export const MASKS = "LAYER_MASK,HEAD_MASK";
/** Where a run leaves the number of layers that it found, their kinds, and the number of heads (report.js). */
export const FOUND = "vdit_layers";
export const KINDS = "vdit_kinds";
export const HEADS = "vdit_heads";

const DEMO = "VDiT_DemoModel";
const ASSUMED = { layers: 30, heads: 12 };
// What file names tell: other families first, whose sizes are not Wan's.
const NAMES = [
  [/hunyuan.?video.?1[._]5/i, { layers: 54, heads: 16, kinds: [] }],
  [/hunyuan.?video/i, { layers: 60, heads: 24, kinds: [["double", 20], ["single", 40]] }],
  [/mochi/i, { layers: 48, heads: 24, kinds: [] }],
  [/cogvideox.*2b(?![a-z])/i, { layers: 30, heads: 30, kinds: [] }],
  [/cogvideox/i, { layers: 42, heads: 48, kinds: [] }],
  [/ltx.?(video|v).*(?<!1\d\.?)2b(?![a-z])/i, { layers: 28, heads: 32, kinds: [] }],
  [/ltx/i, { layers: 48, heads: 32, kinds: [] }],
  [/cosmos.?predict2.*14b/i, { layers: 36, heads: 40, kinds: [] }],
  [/cosmos.?predict2.*2b/i, { layers: 28, heads: 16, kinds: [] }],
  [/kandinsky5.*pro/i, { layers: 60, heads: 64, kinds: [] }],
  [/kandinsky5.*lite/i, { layers: 32, heads: 28, kinds: [] }],
  [/vace.*14b(?![a-z])/i, { layers: 48, heads: 40, kinds: [["main", 40], ["vace", 8]] }],
  [/vace.*1[._]3b(?![a-z])/i, { layers: 45, heads: 12, kinds: [["main", 30], ["vace", 15]] }],
  // Wan's sizes; not the 5B of "1.5B", nor "14bit".
  [/(?<!\d\.?)14b(?![a-z])/i, { layers: 40, heads: 40, kinds: [] }],
  [/(?<!\d\.?)1[._]3b(?![a-z])/i, { layers: 30, heads: 12, kinds: [] }],
  [/(?<!\d\.?)5b(?![a-z])/i, { layers: 30, heads: 24, kinds: [] }],
];

/**
 * { layers, heads, kinds, assumed }: from the widgets, else the model, else an earlier run; assumed: what nothing tells.
 * kinds: of a model with several kinds of blocks each kind's name and number.
 */
export function shapeFor(node) {
  const given = (wanted) => Number(node.widgets?.find(({ name }) => name === wanted)?.value) || undefined;
  const ofModel = ofModelInto(node, new Set()) ?? ofModelUsing(node, new Set());
  const { [FOUND]: layers, [KINDS]: kinds, [HEADS]: heads } = node.properties ?? {};
  const known = [ofModel, layers && { layers, heads, kinds: kinds ?? [] }].filter(Boolean);
  // A model of another depth is another model.
  const fitting = given("layers") ? known.filter(({ layers }) => layers === given("layers")) : known;
  const told = {
    layers: given("layers") ?? known[0]?.layers,
    heads: given("heads") ?? fitting.find(({ heads }) => heads)?.heads,
  };
  const assumed = Object.keys(ASSUMED).filter((what) => !told[what]);
  for (const what of assumed) told[what] = ASSUMED[what];
  return { ...told, kinds: fitting[0]?.kinds ?? [], assumed };
}

/** Down from a mask to the nodes that use it, and from each up to its model. */
function ofModelUsing(node, seen) {
  for (const slot of slotsOf(MASKS, node.outputs)) {
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
  if (node.comfyClass === DEMO) return { layers: 9, heads: 2, kinds: [] };
  const names = (node.widgets ?? []).map(({ value }) => value).filter((value) => typeof value === "string");
  return NAMES.find(([pattern]) => names.some((name) => pattern.test(name)))?.[1];
}

// The text of a head mask, read and written as vdit_core/head_mask.py does: a layer mask's terms, with heads behind an "@".
// Strengths are those of layer 0, 1, 2, ... of head 0, then those of head 1, and so on.

import { rangesOver, readIndices, readTerms, suffix, write } from "./mask_text.js";

// Of how many strengths it is tried to write "all" at this one, and the rest behind it.
const GROUNDS = 3;

/** The strength of every head of every layer; throws an Error whose message fits under the cells. */
export function parseHeads(text, layers, heads, kinds = []) {
  const strengths = new Array(layers * heads).fill(0);
  for (const { ofLayers, ofHeads, strength } of readTerms(text, readPlace)) {
    const chosen = ofHeads(heads);
    for (const layer of ofLayers(layers, kinds)) {
      for (const head of chosen) strengths[head * layers + layer] = strength;
    }
  }
  return strengths;
}

/** A short text for these strengths; parseHeads() gives them back to six decimals. */
export function writeHeads(strengths, layers) {
  const rounded = strengths.map((strength) => Number(strength.toFixed(6)));
  const ofLayers = rounded.slice(0, layers);
  // A mask of whole layers is written as one.
  if (rounded.every((strength, index) => strength === ofLayers[index % layers])) return write(ofLayers);
  const counts = new Map();
  for (const strength of rounded) counts.set(strength, (counts.get(strength) ?? 0) + 1);
  const frequent = [...counts.keys()].filter(Boolean).sort((a, b) => counts.get(b) - counts.get(a));
  const grounds = [0, ...frequent.slice(0, GROUNDS)];
  return grounds.map((ground) => writeOn(ground, rounded, layers)).reduce((a, b) => (b.length < a.length ? b : a));
}

function readPlace(text) {
  const at = text.indexOf("@");
  const ofLayers = readIndices(at < 0 ? text : text.slice(0, at).trim());
  return { ofLayers, ofHeads: readIndices(at < 0 ? "all" : text.slice(at + 1).trim(), "head") };
}

/** Everything at the ground's strength, then what differs from it. */
function writeOn(ground, strengths, layers) {
  const heads = strengths.length / layers;
  const different = new Map();
  strengths.forEach((strength, index) => {
    if (strength === ground) return;
    if (!different.has(strength)) different.set(strength, []);
    different.get(strength).push([index % layers, Math.floor(index / layers)]);
  });
  const terms = [];
  for (const [strength, cells] of different) {
    const byLayer = rectangles(cells).map(([of, which]) => rangeTerms(of, which, layers, heads));
    const byHead = rectangles(cells.map(([layer, head]) => [head, layer]));
    const turned = byHead.map(([of, which]) => rangeTerms(which, of, layers, heads));
    const [some, others] = [byLayer.flat(), turned.flat()];
    for (const term of others.length < some.length ? others : some) {
      terms.push({ ...term, text: term.text + suffix(strength) });
    }
  }
  // No two of them name the same head, so they may come in the order in which they are looked for.
  terms.sort((a, b) => a.layer - b.layer || a.head - b.head);
  return [...(ground ? [`all${suffix(ground)}`] : []), ...terms.map(({ text }) => text)].join(", ");
}

/** Pairs as sets of first numbers, each with the second numbers that all of them have. */
function rectangles(pairs) {
  const seconds = new Map();
  for (const [first, second] of pairs) {
    if (!seconds.has(first)) seconds.set(first, []);
    seconds.get(first).push(second);
  }
  const alike = new Map();
  for (const [first, found] of seconds) {
    found.sort((a, b) => a - b);
    const key = found.join();
    if (!alike.has(key)) alike.set(key, [[], found]);
    alike.get(key)[0].push(first);
  }
  return [...alike.values()].map(([firsts, found]) => [firsts.sort((a, b) => a - b), found]);
}

function rangeTerms(ofLayers, ofHeads, layers, heads) {
  const whole = ofHeads.length === heads;
  const terms = [];
  for (const some of ranges(ofLayers, layers)) {
    for (const chosen of ranges(ofHeads, heads)) {
      terms.push({ layer: some.first, head: chosen.first, text: whole ? some.text : `${some.text}@${chosen.text}` });
    }
  }
  return terms;
}

function ranges(indices, count) {
  return indices.length === count ? [{ first: 0, text: "all" }] : rangesOver(indices, new Set(indices));
}

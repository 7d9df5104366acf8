// The cells of a head mask (a form of mask_cells.js): layers from left to right, heads from top to bottom, each as bright as its
// strength. A click on a layer's or a head's number is one on all of its cells.

import { makeCell, makeLabel } from "./cell.js";
import { parseHeads, writeHeads } from "./head_mask_text.js";

// As css/layer_mask.css sets them. Every fifth layer and head stands a little apart and has its number.
const SIZES = { number: 14, kind: 13, row: 11, column: 10, gap: 1, apart: 3, margin: 46 };
const EVERY = 5;

export const headForm = {
  style: "heads",
  label: "strength of every head of every layer",
  parse: (text, { layers, heads, kinds }) => parseHeads(text, layers, heads, kinds),
  write: (strengths, { layers }) => writeHeads(strengths, layers),
  columns: ({ layers }) => layers,
  alone: (index, { layers }) => `${index % layers}@${Math.floor(index / layers)}`,

  width({ layers }) {
    return Math.max(300, SIZES.margin + layers * (SIZES.column + SIZES.gap) + Math.ceil(layers / EVERY) * SIZES.apart);
  },

  height({ heads, kinds }) {
    const rows = heads * (SIZES.row + SIZES.gap) + Math.ceil(heads / EVERY - 1) * SIZES.apart;
    return SIZES.number + rows + (kinds.length ? SIZES.kind : 0);
  },

  rectangle(some, other, { layers }) {
    const [columns, rows] = [[some % layers, other % layers], [some, other].map((index) => Math.floor(index / layers))];
    const found = [];
    for (let head = Math.min(...rows); head <= Math.max(...rows); head++) {
      for (let layer = Math.min(...columns); layer <= Math.max(...columns); layer++) found.push(head * layers + layer);
    }
    return found;
  },

  summary(strengths, { layers, heads }) {
    const chosen = strengths.flatMap((strength, index) => (strength > 0 ? [index % layers] : []));
    if (chosen.length === strengths.length) return `all ${heads} heads of all ${layers} layers`;
    if (!chosen.length) return `none of ${strengths.length} heads`;
    return `${chosen.length} of ${strengths.length} heads, in ${new Set(chosen).size} layers`;
  },

  build(grid, { layers, heads, kinds }) {
    const starts = startsOf(kinds);
    const columns = tracks(layers, `minmax(${SIZES.column}px, 1fr)`, (layer) => starts.has(layer) || layer % EVERY === 0);
    const rows = tracks(heads, `minmax(${SIZES.row}px, 1fr)`, (head) => head % EVERY === 0);
    grid.style.gridTemplateColumns = `auto ${columns.sizes}`;
    grid.style.gridTemplateRows = `${kinds.length ? "auto " : ""}auto ${rows.sizes}`;
    grid.style.gap = `${SIZES.gap}px`;
    const top = kinds.length ? 2 : 1;
    const beside = new Map();
    const labels = [...starts].map(([layer, kind]) => {
      const title = makeLabel(kind, "kind");
      title.style.gridArea = `1 / ${1 + columns.lines[layer]} / auto / -1`;
      return title;
    });
    const label = (number, row, column, all, title) => {
      const made = makeLabel(number % EVERY === 0 ? number : "·", "all");
      made.title = title;
      made.style.gridArea = `${row} / ${column}`;
      beside.set(made, all);
      labels.push(made);
    };
    for (let layer = 0; layer < layers; layer++) {
      const all = Array.from({ length: heads }, (_, head) => head * layers + layer);
      label(layer, top, 1 + columns.lines[layer], all, `layer ${layer}, all heads`);
    }
    const cells = [];
    for (let head = 0; head < heads; head++) {
      const row = top + rows.lines[head];
      const all = Array.from({ length: layers }, (_, layer) => head * layers + layer);
      label(head, row, 1, all, `head ${head}, all layers`);
      for (let layer = 0; layer < layers; layer++) {
        const cell = makeCell(`layer ${layer}, head ${head}`, { "data-layer": layer, "data-head": head });
        cell.style.gridArea = `${row} / ${1 + columns.lines[layer]}`;
        cells.push(cell);
      }
    }
    grid.replaceChildren(...labels, ...cells);
    return { cells, beside };
  },
};

/** The layer at which each kind of blocks begins, with its name. */
function startsOf(kinds) {
  let first = 0;
  return new Map(kinds.map(([kind, count]) => {
    first += count;
    return [first - count, kind];
  }));
}

/** Tracks of a grid, one for each, with a narrow one before those that stand apart, but the first; and where each lies. */
function tracks(count, size, apart) {
  const [sizes, lines] = [[], []];
  for (let index = 0; index < count; index++) {
    if (index && apart(index)) sizes.push(`${SIZES.apart - SIZES.gap}px`);
    sizes.push(size);
    lines.push(sizes.length);
  }
  return { sizes: sizes.join(" "), lines };
}

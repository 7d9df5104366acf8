// The cells of a layer mask (a form of mask_cells.js): one per layer, in rows, each filled as high as its strength.

import { makeCell, makeLabel } from "./cell.js";
import { parse, write } from "./mask_text.js";

// With their gaps, as css/layer_mask.css sets them.
const HEIGHTS = { numbers: 14, row: 23, kind: 14 };
const WIDTH = 300;

export const layerForm = {
  style: "",
  label: "strength of every layer",
  parse: (text, { layers, kinds }) => parse(text, layers, kinds),
  write: (strengths) => write(strengths),
  columns: ({ layers }) => columnsOf(layers),
  width: () => WIDTH,
  alone: (layer) => `${layer}`,

  height({ layers, kinds }) {
    const rows = groupsOf(layers, kinds).reduce((sum, { rows }) => sum + rows, 0);
    return HEIGHTS.numbers + HEIGHTS.row * rows + HEIGHTS.kind * kinds.length;
  },

  rectangle(some, other) {
    const [low, high] = [Math.min(some, other), Math.max(some, other)];
    return Array.from({ length: high - low + 1 }, (_, index) => low + index);
  },

  summary(strengths, { layers }) {
    const chosen = strengths.filter((strength) => strength > 0).length;
    return chosen === layers ? `all ${chosen} layers` : `${chosen || "none"} of ${layers} layers`;
  },

  build(grid, { layers, kinds }) {
    const columns = columnsOf(layers);
    const groups = groupsOf(layers, kinds);
    const margin = groups.some(({ rows }) => rows > 1) || kinds.length ? 1 : 0;
    const tracks = Array.from({ length: Math.ceil(columns / 5) }, (_, group) => Math.min(5, columns - 5 * group))
      .map((size) => `repeat(${size}, minmax(0, 1fr))`)
      .join(" 2px ");
    grid.style.gridTemplateColumns = `${margin ? "auto " : ""}${tracks}`;
    const place = (element, row, column) => {
      element.style.gridArea = `${row} / ${column < 0 ? 1 : 1 + margin + column + Math.floor(column / 5)}`;
      return element;
    };
    const labels = [];
    for (let column = 0; column < columns; column += 5) labels.push(place(makeLabel(column), 1, column));
    const heights = ["auto"];
    const cells = [];
    for (const { kind, first, count, rows } of groups) {
      if (kind) {
        heights.push("auto");
        const title = makeLabel(kind, "kind");
        title.style.gridArea = `${heights.length} / 1 / auto / -1`;
        labels.push(title);
      }
      for (let index = 0; index < count; index++) {
        const [row, column] = [heights.length + 1 + Math.floor(index / columns), index % columns];
        if (margin && !column) labels.push(place(makeLabel(first + index), row, -1));
        const name = `layer ${first + index}${kind ? `, ${kind} ${index}` : ""}`;
        cells.push(place(makeCell(name, { "data-layer": first + index }), row, column));
      }
      heights.push(...new Array(rows).fill("minmax(20px, 1fr)"));
    }
    grid.style.gridTemplateRows = heights.join(" ");
    grid.replaceChildren(...labels, ...cells);
    return { cells };
  },
};

/** Rows of ten are easy to count; a short model fits one row, a very long one needs longer rows. */
function columnsOf(layers) {
  return layers <= 12 ? layers : layers <= 60 ? 10 : 20;
}

/** The blocks of each kind, or all as one group, and how many rows they fill. */
function groupsOf(layers, kinds) {
  const columns = columnsOf(layers);
  let first = 0;
  return (kinds.length ? kinds : [["", layers]]).map(([kind, count]) => {
    const group = { kind, first, count, rows: Math.ceil(count / columns) };
    first += count;
    return group;
  });
}

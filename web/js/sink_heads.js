// A cell for every head of every layer, coloured by its strongest key: layers from left to right, heads from top to
// bottom. A click or the arrow keys choose one.

import { make } from "./element.js";
import { figure } from "./sink_words.js";

const HEIGHT = { all: 170, least: 7, most: 20 }; // px, of all rows and of one
const WRITTEN = 60; // cells: more figures would be too small to read
const LABEL = 10; // px that a row's label needs at least

export class HeadCells {
  #layers = [];
  #heads = [];
  #cells = []; // by layer, then by head
  #chosen = [0, 0];
  #onChoose;
  #onPoint;

  /** onChoose(layer, head): places in the lists; onPoint: the same of the cell under the pointer as a pair, or null. */
  constructor(onChoose, onPoint) {
    this.#onChoose = onChoose;
    this.#onPoint = onPoint;
    this.element = make("div", "heads", { role: "grid", "aria-label": "strongest key of every layer and head" });
    this.element.addEventListener("pointerdown", (event) => this.#press(event));
    this.element.addEventListener("pointerover", (event) => this.#onPoint(this.#placeOf(event.target)));
    this.element.addEventListener("pointerleave", () => this.#onPoint(null));
    this.element.addEventListener("keydown", (event) => this.#key(event));
  }

  /** px */
  get height() {
    return this.#heads.length * (rowHeight(this.#heads.length) + 1) + 14;
  }

  /** framed: "layer head" of those to frame, as the lists name them. */
  build(layers, heads, framed) {
    this.#layers = layers;
    this.#heads = heads;
    const height = rowHeight(heads.length);
    this.element.style.gridTemplateColumns = `auto repeat(${layers.length}, minmax(0, 1fr))`;
    this.element.style.gridTemplateRows = `13px repeat(${heads.length}, ${height}px)`;
    this.element.classList.toggle("small", height < LABEL);
    this.#cells = layers.map((layer) => heads.map((head) => makeCell(layer, head, framed.has(`${layer} ${head}`))));
    const everyHead = Math.ceil(LABEL / (height + 1));
    const rows = heads.map((head, row) => {
      const line = make("div", "row", { role: "row" });
      line.append(label(row % everyHead ? "" : head), ...this.#cells.map((cells) => cells[row]));
      return line;
    });
    const everyLayer = layers.length > 12 ? 5 : 1;
    const numbers = make("div", "row", { "aria-hidden": true });
    numbers.append(label("head ╲ layer"), ...layers.map((layer, n) => label(n % everyLayer ? "" : layer)));
    this.element.replaceChildren(numbers, ...rows);
    this.choose(...this.#chosen.map((place, n) => Math.min(place, [layers, heads][n].length - 1)));
  }

  /** peaks[layer][head]: of the strongest key, to uniform; 0: not measured. */
  draw(peaks, colors) {
    const written = this.#layers.length * this.#heads.length <= WRITTEN;
    this.#cells.forEach((cells, layer) =>
      cells.forEach((cell, head) => {
        const peak = peaks[layer][head];
        cell.style.backgroundColor = peak ? colors.css(peak) : "";
        cell.setAttribute("aria-label", `${cell.dataset.name}, ${peak ? `${figure(peak)} times uniform` : "not measured"}`);
        if (written) {
          cell.style.color = colors.ink(peak);
          cell.textContent = peak ? figure(peak) : "";
        }
      }),
    );
  }

  choose(layer, head) {
    const before = this.#cells[this.#chosen[0]]?.[this.#chosen[1]];
    before?.setAttribute("aria-selected", false);
    if (before) before.tabIndex = -1;
    this.#chosen = [layer, head];
    const cell = this.#cells[layer][head];
    cell.setAttribute("aria-selected", true);
    cell.tabIndex = 0;
    return cell;
  }

  #placeOf(cell) {
    if (!cell.dataset.name) return null;
    const layer = this.#layers.indexOf(Number(cell.dataset.layer));
    return [layer, this.#heads.indexOf(Number(cell.dataset.head))];
  }

  #press(event) {
    const place = this.#placeOf(event.target);
    if (!place || event.button !== 0) return;
    this.choose(...place).focus({ preventScroll: true });
    this.#onChoose(...place);
  }

  #key(event) {
    const moves = {
      ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], Home: [-Infinity, 0], End: [Infinity, 0],
    };
    if (!(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey) return;
    // The canvas has meanings of its own for these keys.
    event.preventDefault();
    event.stopPropagation();
    const sizes = [this.#layers.length, this.#heads.length];
    const to = this.#chosen.map((at, n) => Math.min(Math.max(at + moves[event.key][n], 0), sizes[n] - 1));
    if (to.every((at, n) => at === this.#chosen[n])) return;
    this.choose(...to).focus({ preventScroll: true });
    this.#onChoose(...to);
  }
}

function rowHeight(heads) {
  return Math.min(Math.max(Math.floor(HEIGHT.all / heads), HEIGHT.least), HEIGHT.most);
}

function makeCell(layer, head, framed) {
  const name = `layer ${layer}, head ${head}${framed ? ", has sinks" : ""}`;
  return make("div", `cell${framed ? " framed" : ""}`, {
    role: "gridcell", tabindex: -1, "aria-selected": false, "data-layer": layer, "data-head": head, "data-name": name,
  });
}

function label(text) {
  const label = make("span", "label", { "aria-hidden": true });
  label.textContent = text;
  return label;
}

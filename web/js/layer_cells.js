// The cells of a layer mask: one per layer, each filled as high as its strength. Knows nothing of nodes and graphs.

import { make } from "./element.js";
import { parse, write } from "./mask_text.js";

const PRESETS = ["all", "none", "early", "middle", "late", "invert"];
// A notch in pixels, the pause after which a turn of the wheel is another one in milliseconds.
const WHEEL = { step: 0.1, fine: 0.01, notch: 50, pause: 300 };
// With their gaps, as css/layer_mask.css sets them.
const HEIGHTS = { presets: 26, numbers: 14, row: 23, kind: 14, status: 18 };

export class LayerCells {
  #strengths = [];
  #layers = 0;
  #kinds = [];
  #locked = false;
  #note = "";
  #error = "";
  #pointed = -1;
  #anchor = 0;
  #stroke = null;
  #scrolled = 0;
  #cells = [];
  #buttons = new Map();
  #onText;

  /** onText: called with the new text whenever the user has changed the mask. */
  constructor(onText) {
    this.#onText = onText;
    this.presets = make("div", "presets");
    for (const name of PRESETS) this.presets.append(this.#preset(name));
    this.grid = make("div", "grid", { role: "group", "aria-label": "strength of every layer" });
    this.status = make("span", "", { role: "status" });
    this.aside = make("span", "note");
    const line = make("div", "status");
    line.append(this.status, this.aside);
    this.element = make("div", "vdit-mask");
    this.element.append(this.presets, this.grid, line);
    this.#listen();
    wheelTakers.set(this.grid, (cell, event) => this.#wheel(cell, event));
  }

  /**
   * Draw a mask. kinds: of a model with several kinds of blocks each kind's name and number, drawn apart.
   * note: a word on the number of layers; locked: the text cannot be changed from here.
   */
  show({ text, layers, kinds = [], note = "", locked = false }) {
    if (layers !== this.#layers || String(kinds) !== String(this.#kinds)) this.#build(layers, kinds);
    this.#note = note;
    this.#locked = locked;
    this.#error = "";
    try {
      this.#strengths = parse(text, layers, kinds);
    } catch (error) {
      this.#strengths = new Array(layers).fill(0);
      this.#error = error.message;
    }
    this.#draw();
  }

  /** The least height in which everything can be seen. */
  get height() {
    const { presets, numbers, row, kind, status } = HEIGHTS;
    const groups = groupsOf(this.#layers, this.#kinds);
    const rows = groups.reduce((sum, { rows }) => sum + rows, 0);
    return presets + numbers + row * rows + kind * this.#kinds.length + status;
  }

  #preset(name) {
    const button = make("button", "", { type: "button" });
    button.textContent = name;
    button.addEventListener("click", () => {
      this.#onText(name === "invert" ? write(this.#strengths.map((strength) => 1 - strength)) : name);
    });
    this.#buttons.set(name, button);
    return button;
  }

  #build(layers, kinds) {
    this.#layers = layers;
    this.#kinds = kinds;
    this.#anchor = this.#pointed = -1;
    const columns = columnsOf(layers);
    const groups = groupsOf(layers, kinds);
    const margin = groups.some(({ rows }) => rows > 1) || kinds.length ? 1 : 0;
    const tracks = Array.from({ length: Math.ceil(columns / 5) }, (_, group) => Math.min(5, columns - 5 * group))
      .map((size) => `repeat(${size}, minmax(0, 1fr))`)
      .join(" 2px ");
    this.grid.style.gridTemplateColumns = `${margin ? "auto " : ""}${tracks}`;
    const place = (element, row, column) => {
      element.style.gridArea = `${row} / ${column < 0 ? 1 : 1 + margin + column + Math.floor(column / 5)}`;
      return element;
    };
    const labels = [];
    for (let column = 0; column < columns; column += 5) labels.push(place(makeLabel(column), 1, column));
    const heights = ["auto"];
    this.#cells = [];
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
        this.#cells.push(place(makeCell(first + index, kind && `${kind} ${index}`), row, column));
      }
      heights.push(...new Array(rows).fill("minmax(20px, 1fr)"));
    }
    this.grid.style.gridTemplateRows = heights.join(" ");
    this.grid.replaceChildren(...labels, ...this.#cells);
    this.#focusable(0);
  }

  #draw() {
    const off = this.#locked || Boolean(this.#error);
    this.element.classList.toggle("off", off);
    this.element.classList.toggle("locked", this.#locked);
    this.#cells.forEach((cell, layer) => {
      const strength = this.#strengths[layer];
      cell.style.setProperty("--strength", strength);
      cell.classList.toggle("on", strength > 0);
      cell.setAttribute("aria-valuenow", strength);
      cell.setAttribute("aria-valuetext", this.#error ? "unknown" : strength.toFixed(2));
    });
    for (const [name, button] of this.#buttons) {
      button.disabled = this.#locked || (name === "invert" && Boolean(this.#error));
      button.setAttribute("aria-pressed", !this.#error && name !== "invert" && this.#is(name));
    }
    this.#drawStatus();
  }

  #drawStatus() {
    const pointed = this.#pointed >= 0 && !this.#error;
    this.status.textContent = pointed
      ? `${this.#cells[this.#pointed].ariaLabel} · ${this.#strengths[this.#pointed].toFixed(2)}`
      : this.#error || this.#summary();
    this.status.title = this.#error;
    this.status.classList.toggle("error", Boolean(this.#error));
    this.aside.textContent = this.#error ? "" : this.#note;
  }

  #summary() {
    const chosen = this.#strengths.filter((strength) => strength > 0).length;
    if (chosen === this.#layers) return `all ${chosen} layers`;
    return `${chosen || "none"} of ${this.#layers} layers`;
  }

  #is(preset) {
    return parse(preset, this.#layers, this.#kinds).every((strength, layer) => strength === this.#strengths[layer]);
  }

  #listen() {
    this.grid.addEventListener("pointerdown", (event) => this.#press(event));
    this.grid.addEventListener("pointermove", (event) => this.#drag(event));
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
      this.grid.addEventListener(end, () => (this.#stroke = null));
    }
    this.grid.addEventListener("pointerover", (event) => this.#point(this.#layerOf(event.target)));
    this.grid.addEventListener("pointerleave", () => this.#point(-1));
    this.grid.addEventListener("focusin", (event) => this.#point(this.#layerOf(event.target)));
    this.grid.addEventListener("focusout", () => this.#point(-1));
    this.grid.addEventListener("keydown", (event) => this.#key(event));
    this.element.addEventListener("dblclick", (event) => this.#solo(event));
  }

  #layerOf(cell) {
    return this.#cells.indexOf(cell);
  }

  #point(layer) {
    this.#pointed = layer;
    this.#drawStatus();
  }

  #press(event) {
    const layer = this.#layerOf(event.target);
    if (layer < 0 || event.button !== 0 || this.#locked) return;
    if (event.shiftKey && this.#anchor >= 0) {
      this.#paint(between(this.#anchor, layer), this.#strengths[this.#anchor]);
    } else {
      const strength = this.#strengths[layer] > 0 ? 0 : 1;
      this.grid.setPointerCapture(event.pointerId);
      this.#stroke = { strength, x: event.clientX, y: event.clientY, boxes: this.#cells.map(boxOf) };
      this.#paint([layer], strength);
    }
    this.#anchor = layer;
    this.#focusable(layer);
  }

  #drag(event) {
    if (!this.#stroke) return;
    const { strength, boxes, x, y } = this.#stroke;
    // A quick hand leaves cells out between two events: walk the line from the last point to this one.
    const steps = Math.max(1, Math.ceil(Math.hypot(event.clientX - x, event.clientY - y) / 4));
    const touched = new Set();
    for (let step = 1; step <= steps; step++) {
      const at = [x + ((event.clientX - x) * step) / steps, y + ((event.clientY - y) * step) / steps];
      const layer = boxes.findIndex((box) => inside(box, ...at));
      if (layer >= 0) touched.add(layer);
    }
    Object.assign(this.#stroke, { x: event.clientX, y: event.clientY });
    if (!touched.size) return;
    this.#anchor = this.#pointed = [...touched].at(-1);
    this.#paint(touched, strength);
  }

  /** This layer alone; all of them again if it is alone already. */
  #solo(event) {
    event.stopPropagation();
    // The target is the grid, which had captured the pointer.
    const layer = this.#cells.map(boxOf).findIndex((box) => inside(box, event.clientX, event.clientY));
    if (layer < 0 || this.#locked) return;
    const alone = this.#strengths.every((strength, other) => strength > 0 === (other === layer));
    this.#onText(alone ? "all" : `${layer}`);
  }

  #key(event) {
    const layer = this.#layerOf(event.target);
    if (layer < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const columns = columnsOf(this.#layers);
    const moves = { ArrowLeft: -1, ArrowRight: 1, PageUp: -columns, PageDown: columns, Home: -layer };
    const changes = { ArrowUp: 1, ArrowDown: -1, "+": 1, "-": -1 };
    if (event.key in moves || event.key === "End") {
      const to = event.key === "End" ? this.#layers - 1 : layer + moves[event.key];
      this.#focusable(Math.min(Math.max(to, 0), this.#layers - 1)).focus();
    } else if (event.key in changes) {
      this.#change(layer, changes[event.key] * (event.shiftKey ? WHEEL.fine : WHEEL.step));
    } else if (event.key === " " || event.key === "Enter") {
      if (!this.#locked) this.#paint([layer], this.#strengths[layer] > 0 ? 0 : 1);
    } else {
      return;
    }
    // The canvas has meanings of its own for these keys.
    event.preventDefault();
    event.stopPropagation();
  }

  #wheel(cell, event) {
    // Shift turns a mouse's wheel sideways; a trackpad sends many small turns.
    this.#scrolled += event.deltaY || event.deltaX;
    const notches = Math.trunc(this.#scrolled / WHEEL.notch) || 0;
    if (!notches) return;
    this.#scrolled = 0;
    this.#change(this.#layerOf(cell), -Math.sign(notches) * (event.shiftKey ? WHEEL.fine : WHEEL.step));
  }

  #change(layer, by) {
    if (this.#locked) return;
    const strength = Math.min(Math.max(this.#strengths[layer] + by, 0), 1);
    this.#anchor = layer;
    this.#paint([layer], Math.round(strength * 100) / 100);
  }

  #paint(layers, strength) {
    const strengths = [...this.#strengths];
    for (const layer of layers) strengths[layer] = strength;
    this.#onText(write(strengths));
  }

  /** Tab stops at one cell only; the arrow keys go on from there. */
  #focusable(layer) {
    this.#cells.forEach((cell, each) => (cell.tabIndex = each === layer ? 0 : -1));
    return this.#cells[layer];
  }
}

// The canvas takes the wheel before any node sees it, so it is taken from it at the window. But a turn that began
// elsewhere goes on as it began: who zooms the canvas with the pointer gliding over a mask must not change the mask.
const wheelTakers = new WeakMap();
const turn = { taker: undefined, time: -Infinity };

function onWheel(event) {
  const cell = event.target instanceof Element ? event.target.closest(".vdit-mask .cell") : null;
  if (event.timeStamp - turn.time > WHEEL.pause) turn.taker = cell && wheelTakers.get(cell.parentElement);
  turn.time = event.timeStamp;
  if (!turn.taker || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  if (cell && wheelTakers.get(cell.parentElement) === turn.taker) turn.taker(cell, event);
}

window.addEventListener("wheel", onWheel, { capture: true, passive: false });

function makeCell(layer, inKind) {
  return make("div", "cell", {
    role: "slider", "aria-label": `layer ${layer}${inKind ? `, ${inKind}` : ""}`,
    "aria-valuemin": 0, "aria-valuemax": 1, "data-layer": layer,
  });
}

function makeLabel(text, style = "") {
  const label = make("span", `label ${style}`.trim(), { "aria-hidden": true });
  label.textContent = text;
  return label;
}

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

function between(some, other) {
  const [low, high] = [Math.min(some, other), Math.max(some, other)];
  return Array.from({ length: high - low + 1 }, (_, index) => low + index);
}

function boxOf(cell) {
  return cell.getBoundingClientRect();
}

function inside(box, x, y) {
  return x >= box.left && x < box.right && y >= box.top && y < box.bottom;
}

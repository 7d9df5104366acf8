// The cells of a mask, each with its strength, and all that mouse and keyboard do to them. How they lie and what their text is
// the form says (layer_cells.js, head_cells.js). Knows nothing of nodes and graphs.

import { make } from "./element.js";

const PRESETS = ["all", "none", "early", "middle", "late", "invert"];
// A notch in pixels, the pause after which a turn of the wheel is another one in milliseconds.
const WHEEL = { step: 0.1, fine: 0.01, notch: 50, pause: 300 };
// With their gaps, as css/layer_mask.css sets them.
const HEIGHTS = { presets: 26, status: 18 };

/**
 * What a form has; a shape is { layers, heads, kinds }, and cells are numbered as its strengths are.
 *   parse(text, shape), write(strengths, shape): the text's strengths, and the other way
 *   build(grid, shape): fills the grid; returns its cells, and for elements beside them which cells they stand for
 *   height(shape), width(shape): of the grid, the least in which everything can be seen
 *   columns(shape): how many cells a page up or down goes
 *   rectangle(some, other, shape): the cells from one to another
 *   alone(index, shape): the text of this cell alone
 *   summary(strengths, shape), label: a word on what is chosen, and on what the cells are
 *   style: a class for css/layer_mask.css
 * @typedef {object} Form
 */

export class MaskCells {
  #form;
  #strengths = [];
  #shape = { layers: 0, heads: 0, kinds: [] };
  #built = "";
  #beside = new Map();
  #locked = false;
  #note = "";
  #error = "";
  #pointed = -1;
  #anchor = 0;
  #stop = null;
  #stroke = null;
  #scrolled = 0;
  #cells = [];
  #numbers = new Map();
  #buttons = new Map();
  #onText;

  /** onText: called with the new text whenever the user has changed the mask. */
  constructor(form, onText) {
    this.#form = form;
    this.#onText = onText;
    this.presets = make("div", "presets");
    for (const name of PRESETS) this.presets.append(this.#preset(name));
    this.grid = make("div", "grid", { role: "group", "aria-label": form.label });
    this.status = make("span", "", { role: "status" });
    this.aside = make("span", "note");
    const line = make("div", "status");
    line.append(this.status, this.aside);
    this.element = make("div", `vdit-mask ${form.style}`.trim());
    this.element.append(this.presets, this.grid, line);
    this.#listen();
    wheelTakers.set(this.grid, (cell, event) => this.#wheel(cell, event));
  }

  /**
   * Draw a mask. kinds: of a model with several kinds of blocks each kind's name and number, drawn apart.
   * note: a word on the model's shape; locked: the text cannot be changed from here.
   */
  show({ text, layers, heads, kinds = [], note = "", locked = false }) {
    this.#build({ layers, heads, kinds });
    this.#note = note;
    this.#locked = locked;
    this.#error = "";
    try {
      this.#strengths = this.#form.parse(text, this.#shape);
    } catch (error) {
      this.#strengths = new Array(this.#cells.length).fill(0);
      this.#error = error.message;
    }
    this.#draw();
  }

  /** The least height and width in which everything can be seen. */
  get height() {
    return HEIGHTS.presets + this.#form.height(this.#shape) + HEIGHTS.status;
  }

  get width() {
    return this.#form.width(this.#shape);
  }

  #preset(name) {
    const button = make("button", "", { type: "button" });
    button.textContent = name;
    button.addEventListener("click", () => {
      this.#onText(name === "invert" ? this.#write(this.#strengths.map((strength) => 1 - strength)) : name);
    });
    this.#buttons.set(name, button);
    return button;
  }

  #build(shape) {
    const built = JSON.stringify(shape);
    if (built === this.#built) return;
    this.#built = built;
    this.#shape = shape;
    this.#anchor = this.#pointed = -1;
    const { cells, beside = new Map() } = this.#form.build(this.grid, shape);
    this.#cells = cells;
    this.#numbers = new Map(cells.map((cell, index) => [cell, index]));
    this.#beside = beside;
    for (const cell of cells) cell.tabIndex = -1;
    this.#focusable(0);
  }

  #write(strengths) {
    return this.#form.write(strengths, this.#shape);
  }

  #draw() {
    const off = this.#locked || Boolean(this.#error);
    this.element.classList.toggle("off", off);
    this.element.classList.toggle("locked", this.#locked);
    this.#cells.forEach((cell, index) => {
      const strength = this.#strengths[index];
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
      : this.#error || this.#form.summary(this.#strengths, this.#shape);
    this.status.title = this.#error;
    this.status.classList.toggle("error", Boolean(this.#error));
    this.aside.textContent = this.#error ? "" : this.#note;
  }

  #is(preset) {
    return this.#form.parse(preset, this.#shape).every((strength, index) => strength === this.#strengths[index]);
  }

  #listen() {
    this.grid.addEventListener("pointerdown", (event) => this.#press(event));
    this.grid.addEventListener("pointermove", (event) => this.#drag(event));
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
      this.grid.addEventListener(end, () => (this.#stroke = null));
    }
    this.grid.addEventListener("pointerover", (event) => this.#point(this.#numberOf(event.target)));
    this.grid.addEventListener("pointerleave", () => this.#point(-1));
    this.grid.addEventListener("focusin", (event) => this.#point(this.#numberOf(event.target)));
    this.grid.addEventListener("focusout", () => this.#point(-1));
    this.grid.addEventListener("keydown", (event) => this.#key(event));
    this.element.addEventListener("dblclick", (event) => this.#solo(event));
  }

  #numberOf(cell) {
    return this.#numbers.get(cell) ?? -1;
  }

  #point(index) {
    this.#pointed = index;
    this.#drawStatus();
  }

  #press(event) {
    if (event.button !== 0 || this.#locked) return;
    const several = this.#beside.get(event.target);
    if (several) return this.#paint(several, several.every((each) => this.#strengths[each] > 0) ? 0 : 1);
    const index = this.#numberOf(event.target);
    if (index < 0) return;
    if (event.shiftKey && this.#anchor >= 0) {
      const between = this.#form.rectangle(this.#anchor, index, this.#shape);
      this.#paint(between, this.#strengths[this.#anchor]);
    } else {
      const strength = this.#strengths[index] > 0 ? 0 : 1;
      this.grid.setPointerCapture(event.pointerId);
      this.#stroke = { strength, x: event.clientX, y: event.clientY, boxes: this.#cells.map(boxOf) };
      this.#paint([index], strength);
    }
    this.#anchor = index;
    this.#focusable(index);
  }

  #drag(event) {
    if (!this.#stroke) return;
    const { strength, boxes, x, y } = this.#stroke;
    // A quick hand leaves cells out between two events: walk the line from the last point to this one.
    const steps = Math.max(1, Math.ceil(Math.hypot(event.clientX - x, event.clientY - y) / 4));
    const touched = new Set();
    for (let step = 1; step <= steps; step++) {
      const at = [x + ((event.clientX - x) * step) / steps, y + ((event.clientY - y) * step) / steps];
      const index = boxes.findIndex((box) => inside(box, ...at));
      if (index >= 0) touched.add(index);
    }
    Object.assign(this.#stroke, { x: event.clientX, y: event.clientY });
    if (!touched.size) return;
    this.#anchor = this.#pointed = [...touched].at(-1);
    this.#paint(touched, strength);
  }

  /** This cell alone; all of them again if it is alone already. */
  #solo(event) {
    event.stopPropagation();
    // The target is the grid, which had captured the pointer.
    const index = this.#cells.map(boxOf).findIndex((box) => inside(box, event.clientX, event.clientY));
    if (index < 0 || this.#locked) return;
    const alone = this.#strengths.every((strength, other) => strength > 0 === (other === index));
    this.#onText(alone ? "all" : this.#form.alone(index, this.#shape));
  }

  #key(event) {
    const index = this.#numberOf(event.target);
    if (index < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const [columns, last] = [this.#form.columns(this.#shape), this.#cells.length - 1];
    const moves = { ArrowLeft: -1, ArrowRight: 1, PageUp: -columns, PageDown: columns, Home: -index };
    const changes = { ArrowUp: 1, ArrowDown: -1, "+": 1, "-": -1 };
    if (event.key in moves || event.key === "End") {
      const to = event.key === "End" ? last : index + moves[event.key];
      this.#focusable(Math.min(Math.max(to, 0), last)).focus();
    } else if (event.key in changes) {
      this.#change(index, changes[event.key] * (event.shiftKey ? WHEEL.fine : WHEEL.step));
    } else if (event.key === " " || event.key === "Enter") {
      if (!this.#locked) this.#paint([index], this.#strengths[index] > 0 ? 0 : 1);
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
    this.#change(this.#numberOf(cell), -Math.sign(notches) * (event.shiftKey ? WHEEL.fine : WHEEL.step));
  }

  #change(index, by) {
    if (this.#locked) return;
    const strength = Math.min(Math.max(this.#strengths[index] + by, 0), 1);
    this.#anchor = index;
    this.#paint([index], Math.round(strength * 100) / 100);
  }

  #paint(indices, strength) {
    const strengths = [...this.#strengths];
    for (const index of indices) strengths[index] = strength;
    this.#onText(this.#write(strengths));
  }

  /** Tab stops at one cell only; the arrow keys go on from there. */
  #focusable(index) {
    if (this.#stop) this.#stop.tabIndex = -1;
    this.#stop = this.#cells[index];
    this.#stop.tabIndex = 0;
    return this.#stop;
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

function boxOf(cell) {
  return cell.getBoundingClientRect();
}

function inside(box, x, y) {
  return x >= box.left && x < box.right && y >= box.top && y < box.bottom;
}

// The panel of an inspection: which heads, in which step, and where in the video. Knows nothing of nodes and graphs.

import { make } from "./element.js";
import { SinkColors } from "./sink_colors.js";
import { FrameStrip } from "./sink_frames.js";
import { HeadCells } from "./sink_heads.js";
import { SinkPieces } from "./sink_pieces.js";
import { figure, ofKey, ofMass } from "./sink_words.js";

const EMPTY = "Run to see where the attention goes.";
const GONE = "The files of this run are gone: run again.";
// px: what stands around cells and frames (css/sink_panel.css), and the least for the frames.
const AROUND = 132;
const FRAMES = 120;

// What is looked at, by folder: an undo makes nodes and panels anew.
const looked = new Map();

export class SinkPanel {
  #told = null;
  #pieces = null;
  #colors = null;
  #pixels = null; // the colour of each code
  #pictures = null; // addresses that are yet to be asked for
  #at = { layer: 0, head: 0, call: 0 }; // places in the lists of what is told
  #loaded = null; // of the chosen head, see SinkPieces
  #asked = 0;
  #pointed = { cell: null, token: -1 };

  constructor() {
    this.cells = new HeadCells((layer, head) => this.#choose({ layer, head }), (cell) => this.#point({ cell }));
    this.frames = new FrameStrip((token) => this.#point({ token }));
    this.step = make("input", "step", { type: "range", min: 0, step: 1, "aria-label": "step" });
    this.stepText = make("span", "figure");
    this.branches = make("div", "branches", { role: "group", "aria-label": "prompt" });
    this.opacity = make("input", "opacity", { type: "range", min: 0, max: 100, step: 5, value: 65, "aria-label": "opacity of the colours" });
    this.scale = make("div", "scale", { "aria-hidden": true });
    this.title = make("div", "title");
    this.place = make("div");
    this.figures = make("div", "faint");
    this.notice = make("div", "notice", { role: "status" });
    const readout = make("div", "readout", { role: "status" });
    readout.append(this.place, this.figures);
    this.shown = make("div", "shown");
    this.shown.append(
      line(faint("step"), this.step, this.stepText, this.branches),
      this.cells.element,
      this.scale,
      line(this.title, faint("colour"), this.opacity),
      this.frames.element,
      readout,
    );
    this.element = make("div", "vdit-sinks");
    this.element.append(this.shown, this.notice);
    this.#listen();
    this.show(null);
  }

  /** The least height in which everything can be seen. */
  get height() {
    return this.#told ? AROUND + this.cells.height + FRAMES : 60;
  }

  /** The inspection that is shown, or null. */
  get told() {
    return this.#told;
  }

  /** Show an inspection, or that there is none (null).
   *
   * told: the node's JSON. view: as SinkPieces takes it. address: (file) => where the page finds a file of the folder.
   */
  show(told, view, address) {
    const before = looked.get(told?.folder) ?? (this.#told && this.#names);
    this.#told = told;
    this.#loaded = null;
    this.#asked++;
    this.shown.hidden = !told;
    this.#note(told ? "" : EMPTY);
    if (!told) return;
    this.#pieces = new SinkPieces(told, view);
    this.#colors = new SinkColors(told.peaks.flat(2).reduce((most, peak) => Math.max(most, peak), 2 * told.limit));
    this.#pixels = this.#colors.pixels(this.#pieces.ratios);
    this.#pictures = Array.from({ length: told.frames }, (_, n) => address(`frame-${String(n).padStart(2, "0")}.jpg`));
    this.cells.build(told.layers, told.heads, new Set(told.sinks.map(({ layer, head }) => `${layer} ${head}`)));
    this.frames.build(told.grid);
    this.#drawScale();
    this.#buildBranches();
    this.#choose((before && this.#placesOf(before)) ?? this.#strongest());
  }

  /** Show another head or call; what is not named stays. */
  async #choose(places) {
    Object.assign(this.#at, places);
    looked.set(this.#told.folder, this.#names);
    const { layer, head, call } = this.#at;
    this.cells.choose(layer, head);
    this.cells.draw(this.#told.peaks[call], this.#colors);
    this.#drawControls();
    this.#drawTitle();
    const asked = ++this.#asked;
    const loaded = await this.#pieces.head(call, layer, head).catch(() => null);
    if (asked !== this.#asked) return; // another is wanted by now
    this.#loaded = loaded;
    this.#note(loaded ? "" : GONE);
    if (loaded) this.#drawFrames();
    this.#drawReadout();
  }

  #point(pointed) {
    Object.assign(this.#pointed, pointed);
    this.#drawReadout();
  }

  #listen() {
    this.step.addEventListener("input", () => this.#choose({ call: this.#callsOf(this.#branch)[this.step.value] }));
    this.opacity.addEventListener("input", () => (this.frames.opacity = this.opacity.value / 100));
    this.frames.opacity = this.opacity.value / 100;
    // The canvas has meanings of its own for arrow keys.
    for (const slider of [this.step, this.opacity]) {
      slider.addEventListener("keydown", (event) => event.key !== "Tab" && event.stopPropagation());
    }
  }

  get #branch() {
    return this.#told.calls[this.#at.call].branch;
  }

  /** The calls of a branch, in the order of the run. */
  #callsOf(branch) {
    return this.#told.calls.flatMap((call, n) => (call.branch === branch ? [n] : []));
  }

  /** What is looked at, by its names. */
  get #names() {
    const { layers, heads, calls } = this.#told;
    return { ...calls[this.#at.call], layer: layers[this.#at.layer], head: heads[this.#at.head] };
  }

  /** The places of what was looked at in an inspection before, if they are in this one. */
  #placesOf({ layer, head, step, branch }) {
    const { layers, heads, calls } = this.#told;
    const call = calls.findIndex((each) => each.step === step && each.branch === branch);
    const places = { layer: layers.indexOf(layer), head: heads.indexOf(head), call };
    return Object.values(places).includes(-1) ? null : places;
  }

  /** The places of the strongest key of all. */
  #strongest() {
    let best = { peak: -1 };
    this.#told.peaks.forEach((table, call) =>
      table.forEach((row, layer) =>
        row.forEach((peak, head) => {
          if (peak > best.peak) best = { peak, call, layer, head };
        }),
      ),
    );
    return { call: best.call, layer: best.layer, head: best.head };
  }

  /** Tokens that a head sinks attention into, mean over all calls. */
  #sinksOf(layer, head) {
    const { layers, heads, sinks } = this.#told;
    return sinks.filter((sink) => sink.layer === layers[layer] && sink.head === heads[head]).map(({ token }) => token);
  }

  #buildBranches() {
    const names = [...new Set(this.#told.calls.map(({ branch }) => branch))];
    this.branches.hidden = names.length < 2;
    this.branches.replaceChildren(
      ...names.map((name) => {
        const button = make("button", "", { type: "button" });
        button.textContent = name;
        button.addEventListener("click", () => this.#choose({ call: this.#sameStep(name) }));
        return button;
      }),
    );
  }

  /** Another branch's call at the noise level of the chosen one, or the nearest. */
  #sameStep(branch) {
    const { calls } = this.#told;
    const away = (call) => Math.abs(calls[call].sigma - calls[this.#at.call].sigma);
    return this.#callsOf(branch).reduce((best, call) => (away(call) < away(best) ? call : best));
  }

  #drawControls() {
    const { step, sigma, branch } = this.#told.calls[this.#at.call];
    const calls = this.#callsOf(branch);
    this.step.max = calls.length - 1;
    this.step.value = calls.indexOf(this.#at.call);
    this.step.disabled = calls.length < 2;
    this.stepText.textContent = `${step} · noise ${sigma.toFixed(2)}`;
    this.step.setAttribute("aria-valuetext", `step ${step}, noise level ${sigma.toFixed(2)}`);
    for (const button of this.branches.children) button.setAttribute("aria-pressed", button.textContent === branch);
  }

  #drawScale() {
    const { limit } = this.#told;
    const at = (ratio) => `${(100 * this.#colors.place(ratio)).toFixed(2)}%`;
    const ticks = this.#colors.ticks.map((ratio) => {
      const tick = faint(ratio < 1 ? "¼" : figure(ratio).replace(".0", ""));
      tick.style.left = at(ratio);
      return tick;
    });
    const mark = make("div", "limit");
    mark.style.left = at(limit);
    const bar = make("div", "bar");
    bar.style.background = this.#colors.gradient;
    bar.append(mark, ...ticks);
    const framed = make("span", "framed");
    this.scale.replaceChildren(faint("× uniform"), bar, framed, faint(`sink: from ${limit} on`));
  }

  #drawTitle() {
    const { layer, head } = this.#names;
    this.title.textContent = `layer ${layer} · head ${head} · ${this.#found(this.#at.layer, this.#at.head)}`;
  }

  /** What a head of the chosen call has, in words. */
  #found(layer, head) {
    const peak = this.#told.peaks[this.#at.call][layer][head];
    if (!peak) return "not measured in this step";
    const sinks = this.#sinksOf(layer, head).length;
    return `strongest key ${figure(peak)} × uniform, ${sinks || "no"} sink${sinks === 1 ? "" : "s"}`;
  }

  #drawFrames() {
    const [strongest] = this.#loaded.strongest.keys();
    this.frames.strongest = strongest ?? 0;
    this.frames.draw(this.#loaded.codes, this.#pixels, this.#sinksOf(this.#at.layer, this.#at.head));
    if (this.#pictures) this.frames.illustrate(this.#pictures);
    this.#pictures = null;
  }

  /** Of the token pointed at, else of the cell, else of the strongest key. */
  #drawReadout() {
    const { cell, token } = this.#pointed;
    const other = cell && (cell[0] !== this.#at.layer || cell[1] !== this.#at.head);
    const [first, second] = !this.#loaded ? ["", ""] : token < 0 && other ? this.#ofCell(cell) : this.#ofToken(token);
    this.place.textContent = first;
    this.figures.textContent = second;
  }

  #ofCell([layer, head]) {
    const { layers, heads } = this.#told;
    return [`layer ${layers[layer]}, head ${heads[head]}: ${this.#found(layer, head)}`, "click to look at it"];
  }

  #ofToken(pointed) {
    const { codes, strongest } = this.#loaded;
    const [first] = strongest.keys();
    const token = pointed < 0 ? first : pointed;
    if (token === undefined) return ["not measured in this step", ""];
    const { tokens, ratios } = this.#pieces;
    const known = strongest.get(token);
    const ratio = known ? known.mass * tokens : ratios[codes[token]];
    const words = ofMass({ token, place: this.frames.place(token), ratio, tokens });
    return [pointed < 0 ? `strongest: ${words}` : words, ofKey(known, this.#told.strongest)];
  }

  #note(words) {
    this.notice.textContent = words;
    this.notice.hidden = !words;
    this.element.classList.toggle("gone", words === GONE);
  }
}

function line(...parts) {
  const element = make("div", "line");
  element.append(...parts);
  return element;
}

function faint(words) {
  const element = make("span", "faint");
  element.textContent = words;
  return element;
}

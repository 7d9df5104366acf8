// The tokens of a video, frame by frame: the mass of each as a colour over the decoded pictures, chosen ones ringed.

import { make } from "./element.js";

const KEYS = "Arrow keys go from token to token, Page Up and Page Down from frame to frame, Home to the strongest; Enter shows a frame alone.";
const GAP = { across: 6, down: 17 }; // px; below a frame's picture stands the next one's name

export class FrameStrip {
  #grid = null;
  #frames = []; // { figure, box, canvas }
  #token = -1;
  #alone = -1; // the frame that is seen alone, or -1
  #onPoint;

  /** onPoint(token): the one under the pointer or the keyboard's cursor, or -1. */
  constructor(onPoint) {
    this.#onPoint = onPoint;
    this.element = make("div", "frames", {
      role: "application",
      tabindex: 0,
      "aria-label": `attention over the video. ${KEYS}`,
    });
    this.sheet = make("div", "sheet");
    this.element.append(this.sheet);
    this.cursor = make("div", "cursor");
    this.element.addEventListener("pointermove", (event) => this.#point(this.#tokenAt(event)));
    this.element.addEventListener("pointerleave", () => this.#point(-1));
    this.element.addEventListener("click", (event) => this.#toggle(this.#frameAt(event)));
    this.element.addEventListener("keydown", (event) => this.#key(event));
    this.element.addEventListener("focus", () => {
      if (this.#token < 0 && this.element.matches(":focus-visible")) this.#point(this.strongest);
    });
    this.element.addEventListener("blur", () => this.#point(-1));
    new ResizeObserver(() => this.#fit()).observe(this.element);
    /** Where Home goes. */
    this.strongest = 0;
  }

  /** grid: as the node tells it. */
  build(grid) {
    this.#grid = grid;
    this.#frames = Array.from({ length: grid.frames }, (_, frame) => makeFrame(frame, grid));
    this.sheet.replaceChildren(...this.#frames.map(({ figure }) => figure));
    this.#point(-1);
    this.#toggle(-1);
  }

  /** Decoded pictures behind the colours: an address for each frame, or none. */
  illustrate(addresses) {
    addresses.forEach((src, frame) => {
      const image = make("img", "", { alt: "", draggable: false, src });
      image.addEventListener("error", () => image.remove());
      this.#frames[frame].box.prepend(image);
    });
  }

  /** codes: a byte for every token; pixels: the colour of each code; rings: tokens. */
  draw(codes, pixels, rings) {
    const { prefix, height, width } = this.#grid;
    const size = height * width;
    this.#frames.forEach(({ box, canvas }, frame) => {
      const first = prefix + frame * size;
      const image = new ImageData(width, height);
      const shown = new Uint32Array(image.data.buffer);
      for (let n = 0; n < size; n++) shown[n] = pixels[codes[first + n]];
      canvas.getContext("2d").putImageData(image, 0, 0);
      for (const ring of box.querySelectorAll(".ring")) ring.remove();
      const here = rings.filter((token) => token >= first && token < first + size);
      box.append(...here.map((token) => this.#over(token, make("div", "ring"))));
    });
  }

  set opacity(value) {
    this.sheet.style.setProperty("--heat", value);
  }

  #over(token, element) {
    const { row, column } = this.place(token);
    const { height, width } = this.#grid;
    const [left, top] = [(100 * column) / width, (100 * row) / height];
    element.style.cssText = `left:${left}%;top:${top}%;width:${100 / width}%;height:${100 / height}%`;
    return element;
  }

  /** { frame, row, column } of a token; undefined if it has no place on the grid. */
  place(token) {
    const { prefix, frames, height, width } = this.#grid;
    const inner = token - prefix;
    if (inner < 0 || inner >= frames * height * width) return undefined;
    const [frame, rest] = [Math.floor(inner / (height * width)), inner % (height * width)];
    return { frame, row: Math.floor(rest / width), column: rest % width };
  }

  #frameAt(event) {
    return this.#frames.findIndex(({ box }) => box.contains(event.target));
  }

  #tokenAt(event) {
    const frame = this.#frameAt(event);
    if (frame < 0) return -1;
    const { prefix, height, width } = this.#grid;
    const edges = this.#frames[frame].canvas.getBoundingClientRect();
    const [x, y] = [(event.clientX - edges.left) / edges.width, (event.clientY - edges.top) / edges.height];
    const [row, column] = [within(Math.floor(y * height), height), within(Math.floor(x * width), width)];
    return prefix + (frame * height + row) * width + column;
  }

  #point(token) {
    this.#token = token;
    const place = token < 0 ? undefined : this.place(token);
    if (place) this.#frames[place.frame].box.append(this.#over(token, this.cursor));
    else this.cursor.remove();
    if (place && this.#alone >= 0 && place.frame !== this.#alone) this.#toggle(place.frame);
    this.#onPoint(token);
  }

  /** Show a frame alone; all of them if it is alone already. */
  #toggle(frame) {
    this.#alone = frame === this.#alone ? -1 : frame;
    this.#frames.forEach(({ figure }, n) => (figure.hidden = this.#alone >= 0 && n !== this.#alone));
    this.#fit();
  }

  #key(event) {
    if (!this.#grid || event.ctrlKey || event.metaKey || event.altKey) return;
    const { prefix, frames, height, width } = this.#grid;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -width, ArrowDown: width };
    Object.assign(by, { PageUp: -height * width, PageDown: height * width });
    if (!(event.key in by) && event.key !== "Home" && event.key !== "Enter") return;
    // The canvas has meanings of its own for these keys.
    event.preventDefault();
    event.stopPropagation();
    if (event.key === "Enter") return this.#toggle(this.place(this.#token)?.frame ?? -1);
    const from = this.place(this.#token) ? this.#token : this.place(this.strongest) ? this.strongest : prefix;
    const to = event.key === "Home" ? this.strongest : from + by[event.key];
    if (to >= prefix && to < prefix + frames * height * width) this.#point(to);
  }

  /** As many columns as make the frames largest. */
  #fit() {
    const { clientWidth, clientHeight } = this.element;
    if (!this.#grid || !clientWidth || !clientHeight) return;
    const { height, width } = this.#grid;
    const frames = this.#alone < 0 ? this.#frames.length : 1;
    let best = { edge: 0, columns: 1 };
    for (let columns = 1; columns <= frames; columns++) {
      const rows = Math.ceil(frames / columns);
      const across = (clientWidth - 4 - (columns - 1) * GAP.across) / columns;
      const down = (((clientHeight - 4) / rows - GAP.down) * width) / height;
      const edge = Math.floor(Math.min(across, down));
      if (edge > best.edge) best = { edge, columns };
    }
    this.sheet.style.gridTemplateColumns = `repeat(${best.columns}, ${best.edge}px)`;
  }
}

function makeFrame(frame, { width, height }) {
  const figure = make("figure");
  const name = make("figcaption");
  name.textContent = `frame ${frame}`;
  const box = make("div", "box", { title: "click: this frame alone, or all of them" });
  box.style.aspectRatio = `${width} / ${height}`;
  const canvas = make("canvas");
  Object.assign(canvas, { width, height });
  box.append(canvas);
  figure.append(name, box);
  return { figure, box, canvas };
}

function within(place, size) {
  return Math.min(Math.max(place, 0), size - 1);
}

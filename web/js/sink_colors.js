// Colours for ratios to a uniform share: the map cividis on a logarithmic scale, as vdit_core/sinks/pictures.py has it.

// Safe for every kind of colour vision; dark is little. Of matplotlib's 256 colours those between which the others lie
// on a straight line, to 3 of 255.
const STOPS = [
  [0, 0x00224e], [22, 0x003171], [28, 0x123570], [35, 0x203a6f], [53, 0x38476c], [86, 0x585e6d], [125, 0x7a7a78],
  [152, 0x938e78], [203, 0xc7b767], [234, 0xe9d34e], [251, 0xfde334], [255, 0xfee838],
];
const LEAST = 0.25;

/** A scale from a quarter of the uniform share to `most` times it. */
export class SinkColors {
  constructor(most) {
    this.most = most;
    this.doublings = Math.log2(most / LEAST);
  }

  /** Where on the scale a ratio lies, from 0 to 1. */
  place(ratio) {
    return ratio > 0 ? Math.min(Math.max(Math.log2(ratio / LEAST) / this.doublings, 0), 1) : 0;
  }

  css(ratio) {
    return css(colorAt(this.place(ratio)));
  }

  /** A colour for text that can be read on that of a ratio. */
  ink(ratio) {
    return this.place(ratio) > 0.5 ? "#000" : "#fff";
  }

  /** Of 256 ratios, as a canvas has them: one number a pixel. */
  pixels(ratios) {
    const bytes = new Uint8ClampedArray(4 * ratios.length);
    ratios.forEach((ratio, n) => bytes.set([...colorAt(this.place(ratio)), 255], 4 * n));
    return new Uint32Array(bytes.buffer);
  }

  /** The whole scale as a CSS gradient, from left to right. */
  get gradient() {
    const stops = STOPS.map(([at, color]) => `${css(channels(color))} ${((at / 255) * 100).toFixed(1)}%`);
    return `linear-gradient(to right, ${stops.join(", ")})`;
  }

  /** Ratios to write at the scale: every fourth-fold, fewer if it is long. */
  get ticks() {
    const by = this.doublings > 14 ? 4 : 2;
    const ticks = [];
    for (let power = -2; power <= Math.log2(this.most); power += by) ticks.push(2 ** power);
    return ticks;
  }
}

function colorAt(place) {
  const at = place * 255;
  const after = Math.max(1, STOPS.findIndex(([stop]) => stop >= at));
  const [[low, from], [high, to]] = [STOPS[after - 1], STOPS[after]];
  const ends = [channels(from), channels(to)];
  return ends[0].map((channel, n) => channel + ((at - low) / (high - low)) * (ends[1][n] - channel));
}

function channels(color) {
  return [color >> 16, (color >> 8) & 255, color & 255];
}

function css(color) {
  return `rgb(${color.map(Math.round).join(" ")})`;
}

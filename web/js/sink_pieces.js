// What was measured of a run, loaded head by head: nodes/sink_pieces.py writes the files and says what is in them.

const KEPT = 64; // heads
const RECORD = 20; // bytes of one of the strongest keys

/** The files of a run are no longer there. */
export class Gone extends Error {}

export class SinkPieces {
  #told;
  #view;
  #heads = new Map();

  /** told: the node's JSON. view: (file, options) => the answer to a request for a file of the folder. */
  constructor(told, view) {
    this.#told = told;
    this.#view = view;
    const { frames, height, width, prefix, suffix } = told.grid;
    this.tokens = prefix + frames * height * width + suffix;
    /** The ratio to uniform that each code stands for. */
    this.ratios = Array.from({ length: 256 }, (_, code) =>
      code ? 2 ** ((code - told.code.uniform) / told.code.per_doubling) : 0,
    );
  }

  /** { codes, strongest }: of a head of a layer in a call, each by its place in the node's lists; rejects with Gone.
   *
   * codes: a byte for every token. strongest: by token { mass, participation, keyNorm, valueNorm }, the largest mass first.
   */
  head(call, layer, head) {
    const key = `${call} ${layer} ${head}`;
    const found = this.#heads.get(key) ?? this.#load(call, layer, head);
    this.#heads.delete(key);
    this.#heads.set(key, found);
    found.catch(() => this.#heads.delete(key));
    for (const oldest of this.#heads.keys()) {
      if (this.#heads.size <= KEPT) break;
      this.#heads.delete(oldest);
    }
    return found;
  }

  async #load(call, layer, head) {
    const { layers, heads, strongest } = this.#told;
    const file = `layer-${String(layers[layer]).padStart(2, "0")}`;
    const place = call * heads.length + head;
    const [codes, records] = await Promise.all([
      this.#part(`${file}.mass`, place * this.tokens, this.tokens),
      this.#part(`${file}.strongest`, place * strongest * RECORD, strongest * RECORD),
    ]);
    return { codes: new Uint8Array(codes), strongest: readStrongest(new DataView(records)) };
  }

  async #part(file, first, count) {
    const headers = { Range: `bytes=${first}-${first + count - 1}` };
    const answer = await this.#view(file, { headers, cache: "no-store" }).catch(() => null);
    if (!answer?.ok) throw new Gone(file);
    const bytes = await answer.arrayBuffer();
    // A proxy may not know ranges and send the whole file.
    const part = answer.status === 206 ? bytes : bytes.slice(first, first + count);
    if (part.byteLength !== count) throw new Gone(file);
    return part;
  }
}

function readStrongest(view) {
  const found = new Map();
  for (let at = 0; at < view.byteLength; at += RECORD) {
    const [mass, participation, keyNorm, valueNorm] = [4, 8, 12, 16].map((offset) => view.getFloat32(at + offset, true));
    if (mass > 0) found.set(view.getInt32(at, true), { mass, participation, keyNorm, valueNorm });
  }
  return found;
}

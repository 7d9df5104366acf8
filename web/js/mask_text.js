// The text of a layer mask, read and written as vdit_core/selection.py does (the grammar is told there).

const THIRDS = ["early", "middle", "late"];
const TERM = /^(?:([a-z]+) )?(?:(all|none|early|middle|late)|(\d+)(?:-(\d+)(?:\/(\d+))?)?|(\d+(?:\.\d+)?)%-(\d+(?:\.\d+)?)%)$/;
const NUMBER = /^(?:\d*\.?\d+|\d+\.)$/;

/**
 * The strength of every layer; throws an Error whose message fits under the cells.
 * kinds: of a model with several kinds of blocks each kind's name and number, in the order of the layers.
 */
export function parse(text, layers, kinds = []) {
  const terms = readTerms(text);
  const strengths = new Array(layers).fill(0);
  for (const { indices, strength } of terms) {
    for (const layer of indices(layers, kinds)) strengths[layer] = strength;
  }
  return strengths;
}

/** The shortest text (of those that read well) for these strengths; parse() gives them back to six decimals. */
export function write(strengths) {
  const rounded = strengths.map((strength) => Number(strength.toFixed(6)));
  const values = [...new Set(rounded)];
  if (values.length === 1) return values[0] ? `all${suffix(values[0])}` : "none";
  const grounds = [...values.filter(Boolean), 0];
  return grounds.map((ground) => writeOn(ground, rounded)).reduce((a, b) => (b.length < a.length ? b : a));
}

/**
 * Every term of a mask: what `read` makes of its indices, and its strength. Every term is read before any is resolved, so
 * that of two mistakes Python and the page name the same one.
 */
export function readTerms(text, read = (indices) => ({ indices: readIndices(indices) })) {
  const terms = text.split(",").map((term) => term.trim().toLowerCase());
  if (!terms.every(Boolean)) throw new Error("empty term: write none, or all");
  return terms.map((term) => readTerm(term, read));
}

function readTerm(term, read) {
  const colon = term.indexOf(":");
  if (colon < 0) return { ...read(term), strength: 1 };
  const number = term.slice(colon + 1).trim();
  if (!NUMBER.test(number)) throw new Error(`cannot read the strength “${number}”`);
  if (Number(number) > 1) throw new Error(`strength ${number} is out of range: 0 to 1`);
  return { ...read(term.slice(0, colon).trim()), strength: Number(number) };
}

/** A function from the number of layers, and the kinds of blocks, to the layers that a term names; or of heads. */
export function readIndices(text, what = "layer") {
  const match = TERM.exec(text);
  if (!match) throw new Error(`cannot read “${text}”`);
  const [, kind, word, low, high, every, from, to] = match;
  let indices;
  if (word) indices = (layers) => wordIndices(word, layers);
  else if (from) indices = shareIndices(text, Number(from) / 100, Number(to) / 100);
  else indices = rangeIndices(text, what, Number(low), Number(high ?? low), Number(every ?? 1));
  if (kind && what !== "layer") throw new Error(`${what}s have no kinds: “${text}”`);
  return kind ? (_, kinds) => indicesWithin(kind, kinds, indices) : indices;
}

function indicesWithin(kind, kinds, indices) {
  let start = 0;
  for (const [name, count] of kinds) {
    if (name === kind) return indices(count).map((index) => start + index);
    start += count;
  }
  throw new Error(`no kind “${kind}” is known of this model`);
}

function wordIndices(word, layers) {
  const third = THIRDS.indexOf(word);
  if (third < 0) return range(0, word === "all" ? layers : 0);
  return range(Math.ceil((third * layers) / 3), Math.ceil(((third + 1) * layers) / 3));
}

function shareIndices(text, from, to) {
  if (!(from <= to && to <= 1)) throw new Error(`${text} is not a part of the whole: write low%-high%`);
  // The tolerance is Python's: 70 % of 10 layers must not become 8 of them.
  const edge = (share, layers) => range(0, layers).filter((layer) => layer / layers < share - 1e-9).length;
  return (layers) => range(edge(from, layers), edge(to, layers));
}

function rangeIndices(text, what, low, high, every) {
  if (high < low) throw new Error(`${text} runs backwards: write ${high}-${low}`);
  if (every < 1) throw new Error(`${text}: the stride must be at least 1`);
  return (count) => {
    if (high >= count) throw new Error(`${what} ${high} is out of range: 0 to ${count - 1}`);
    return range(low, high + 1, every);
  };
}

function range(start, end, step = 1) {
  const indices = [];
  for (let index = start; index < end; index += step) indices.push(index);
  return indices;
}

export function suffix(strength) {
  return strength === 1 ? "" : `:${strength}`;
}

/** All layers at the ground's strength, then what differs from it. */
function writeOn(ground, strengths) {
  const differing = new Map();
  strengths.forEach((strength, layer) => {
    if (strength === ground) return;
    if (!differing.has(strength)) differing.set(strength, []);
    differing.get(strength).push(layer);
  });
  const terms = [];
  // The largest group first: the last term counts, so its ranges may run across layers that are yet to be written.
  const groups = [...differing].sort(([, a], [, b]) => b.length - a.length);
  const ahead = new Set(groups.flatMap(([, layers]) => layers));
  for (const [strength, layers] of groups) {
    for (const { first, text } of rangesOver(layers, ahead)) terms.push({ first, text: text + suffix(strength) });
    for (const layer of layers) ahead.delete(layer);
  }
  const joined = (inOrder) => [...(ground ? [`all${suffix(ground)}`] : []), ...inOrder.map(({ text }) => text)].join(", ");
  const rising = joined([...terms].sort((a, b) => a.first - b.first));
  return same(parse(rising, strengths.length), strengths) ? rising : joined(terms);
}

function same(some, others) {
  return some.every((strength, layer) => strength === others[layer]);
}

/** Few ranges that together hold all the wanted layers, and otherwise only layers that may be crossed. */
export function rangesOver(wanted, crossable) {
  const left = new Set(wanted);
  const terms = [];
  while (left.size) {
    const best = longestRange(left, crossable);
    for (const layer of best.layers) left.delete(layer);
    terms.push({ first: best.layers[0], text: rangeText(best) });
  }
  return terms;
}

function longestRange(left, crossable) {
  const [first] = left;
  const last = Math.max(...left);
  let best = { layers: [first], every: 1 };
  for (let every = 1; first + every <= last; every++) {
    const layers = [];
    for (let layer = first; layer <= last && crossable.has(layer); layer += every) {
      if (left.has(layer)) layers.push(layer);
    }
    // "0, 4" is shorter than "0-4/4".
    if (layers.length > best.layers.length && (every === 1 || layers.length > 2)) best = { layers, every };
  }
  return best;
}

function rangeText({ layers, every }) {
  const [first, last] = [layers[0], layers.at(-1)];
  if (first === last) return `${first}`;
  return every === 1 ? `${first}-${last}` : `${first}-${last}/${every}`;
}

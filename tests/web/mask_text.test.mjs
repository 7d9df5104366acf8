import assert from "node:assert/strict";
import { test } from "node:test";

import { parse, write } from "../../web/js/mask_text.js";

const on = (layers, count) => Array.from({ length: count }, (_, layer) => (layers.includes(layer) ? 1 : 0));

test("terms choose layers", () => {
  assert.deepEqual(parse("all", 3), [1, 1, 1]);
  assert.deepEqual(parse("none", 3), [0, 0, 0]);
  assert.deepEqual(parse("1", 3), [0, 1, 0]);
  assert.deepEqual(parse("1-3", 5), on([1, 2, 3], 5));
  assert.deepEqual(parse("0-8/4", 10), on([0, 4, 8], 10));
  assert.deepEqual(parse(" 0 ,\t2 ", 3), [1, 0, 1]);
  assert.deepEqual(parse("ALL", 2), [1, 1]);
});

test("thirds and shares follow the number of layers", () => {
  for (const layers of [1, 9, 10, 11, 30, 40]) {
    const thirds = ["early", "middle", "late"].map((word) => parse(word, layers));
    assert.deepEqual(thirds[0].map((_, i) => thirds[0][i] + thirds[1][i] + thirds[2][i]), new Array(layers).fill(1));
  }
  assert.deepEqual(parse("late", 10), on([7, 8, 9], 10));
  assert.deepEqual(parse("0%-70%", 10), on([0, 1, 2, 3, 4, 5, 6], 10));
  assert.deepEqual(parse("50%-100%", 5), on([3, 4], 5));
});

test("a term may carry a strength, and the last term counts", () => {
  assert.deepEqual(parse("all:.5, 1:0", 3), [0.5, 0, 0.5]);
  assert.deepEqual(parse("1:0, all", 3), [1, 1, 1]);
  assert.deepEqual(parse("0 : 1.", 2), [1, 0]);
});

test("what cannot be read says so in few words", () => {
  for (const [text, message] of [
    ["", /empty term/],
    ["0,,1", /empty term/],
    ["frist", /cannot read “frist”/],
    ["3 - 7", /cannot read/],
    ["1:x", /cannot read the strength “x”/],
    ["1:", /cannot read the strength/],
    ["1:1.5", /strength 1\.5 is out of range/],
    ["7-3", /write 3-7/],
    ["0-8/0", /stride/],
    ["60%-20%", /not a part of the whole/],
    ["0%-101%", /not a part of the whole/],
    ["30", /layer 30 is out of range: 0 to 29/],
  ]) {
    assert.throws(() => parse(text, 30), message, text);
  }
});

test("strengths are written shortly", () => {
  for (const text of [
    "all", "none", "all:0.5", "0", "0-4", "0-4, 7:0.5", "0-28/4", "all, 3:0", "0-14, 7:0.5", "5-9:0.25, 20-29",
    "all:0.5, 0-3", "1-29/2",
  ]) {
    assert.equal(write(parse(text, 30)), text);
  }
  assert.equal(write(parse("early, middle", 30)), "0-19");
  assert.equal(write(parse("0, 1, 2, 10:1.0", 30)), "0-2, 10");
  assert.equal(write(new Array(9).fill(1)), "all");
  assert.equal(write([1]), "all");
  assert.equal(write([0.1 + 0.2, 0]), "0:0.3");
});

test("what is written is read back", () => {
  let state = 1;
  const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
  for (let round = 0; round < 2000; round++) {
    const layers = 1 + Math.floor(random() * 48);
    const palette = [0, 1, 0.5, 0.05, 0.333333].slice(0, 1 + Math.floor(random() * 5));
    let strength = 0;
    const strengths = Array.from({ length: layers }, () => {
      if (random() < 0.4) strength = palette[Math.floor(random() * palette.length)];
      return strength;
    });
    assert.deepEqual(parse(write(strengths), layers), strengths, write(strengths));
  }
});

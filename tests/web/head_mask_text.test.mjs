import assert from "node:assert/strict";
import { test } from "node:test";

import { parseHeads, writeHeads } from "../../web/js/head_mask_text.js";
import { parse } from "../../web/js/mask_text.js";

test("terms choose heads of layers", () => {
  assert.deepEqual(parseHeads("1@0", 3, 2), [0, 1, 0, 0, 0, 0]);
  assert.deepEqual(parseHeads("1 @ 1 : 0.5", 3, 2), [0, 0, 0, 0, 0.5, 0]);
  assert.deepEqual(parseHeads("0-1@all, 0@1:0", 3, 2), [1, 1, 0, 0, 1, 0]);
  assert.deepEqual(parseHeads("single 0@1", 3, 2, [["double", 1], ["single", 2]]), [0, 0, 0, 0, 1, 0]);
});

test("a layer mask means all heads", () => {
  for (const text of ["all", "none", "3-7:0.5", "early, 20:0.3", "all, 3:0", "0-28/4"]) {
    const ofLayers = parse(text, 30);
    assert.deepEqual(parseHeads(text, 30, 2), [...ofLayers, ...ofLayers]);
    assert.equal(writeHeads([...ofLayers, ...ofLayers], 30), text === "early, 20:0.3" ? "0-9, 20:0.3" : text);
  }
});

test("what cannot be read says so in few words", () => {
  for (const [text, message] of [
    ["5@", /cannot read “”/],
    ["@5", /cannot read “”/],
    ["5@0@1", /cannot read “0@1”/],
    ["5@x", /cannot read “x”/],
    ["5@double 0", /heads have no kinds: “double 0”/],
    ["5@12", /head 12 is out of range: 0 to 11/],
    ["30@0", /layer 30 is out of range: 0 to 29/],
    ["5@3-1", /write 1-3/],
    ["5@0:2", /strength 2 is out of range/],
  ]) {
    assert.throws(() => parseHeads(text, 30, 12), message, text);
  }
});

test("strengths are written shortly", () => {
  for (const text of [
    "5@0", "3-7@0-2:0.5", "all, 5@1:0", "all@3", "all:0.5, 2@4", "0-28/4@1", "5@0-10/2", "0-4, 9@3:0.25", "all, all@0:0.3",
    "2-3@1, 2-3@5-7",
  ]) {
    assert.equal(writeHeads(parseHeads(text, 30, 12), 30), text);
  }
});

test("what is written is read back", () => {
  let state = 1;
  const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
  for (let round = 0; round < 500; round++) {
    const [layers, heads] = [1 + Math.floor(random() * 20), 1 + Math.floor(random() * 12)];
    const palette = [0, 1, 0.5, 0.05, 0.333333].slice(0, 1 + Math.floor(random() * 5));
    let strength = 0;
    const strengths = Array.from({ length: layers * heads }, () => {
      if (random() < 0.3) strength = palette[Math.floor(random() * palette.length)];
      return strength;
    });
    const text = writeHeads(strengths, layers);
    assert.deepEqual(parseHeads(text, layers, heads), strengths, text);
  }
});

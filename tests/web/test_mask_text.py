"""The page reads and writes masks as vdit_core does: web/js/mask_text.js and head_mask_text.js, run in node."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from vdit_core.head_mask import HeadMask
from vdit_core.selection import LayerMask, SelectionError

HERE = Path(__file__).parent
SCRIPTS = HERE.parents[1] / "web" / "js"
MODULE, OF_HEADS = SCRIPTS / "mask_text.js", SCRIPTS / "head_mask_text.js"
LAYERS = (1, 2, 9, 10, 30, 40)
BLOCKS = {layers: [("double", layers // 3 or 1), ("single", layers - (layers // 3 or 1))] for layers in LAYERS[1:]}

#: What both messages must have in common, the more special first.
KINDS = (r"eads have no kinds", r"empty term", r"annot read the strength", r"annot read", r"trength .* is out of range",
         r"runs backwards", r"stride", r"not a part of the whole", r" kind ", r"ayer \d+ .*is out of range",
         r"ead \d+ .*is out of range")  # fmt: skip

RUN = """
const { parse, write } = await import(process.argv[1]);
let input = "";
for await (const chunk of process.stdin) input += chunk;
const results = JSON.parse(input).map(([text, layers, kinds]) => {
  try {
    const strengths = parse(text, layers, kinds);
    return { strengths, written: write(strengths) };
  } catch (error) {
    return { error: error.message };
  }
});
console.log(JSON.stringify(results));
"""

RUN_HEADS = """
const { parseHeads, writeHeads } = await import(process.argv[1]);
let input = "";
for await (const chunk of process.stdin) input += chunk;
const results = JSON.parse(input).map(([text, layers, heads, kinds]) => {
  try {
    const strengths = parseHeads(text, layers, heads, kinds);
    return { strengths, written: writeHeads(strengths, layers) };
  } catch (error) {
    return { error: error.message };
  }
});
console.log(JSON.stringify(results));
"""


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed: the page's mask grammar is not compared with Python's")
    return found


ODD_INDICES = ("frist", "3-", "-3", "1 - 2", "3/2", "50%", "", "1.5", "٣", "0x1", "+1", "1e1", "Late", "ALL")
ODD_STRENGTHS = (":1", ": .5", " :1.", ":1.01", ":-1", ":1e-1", ":0.1:0.2", ":", ":.", ":half")


def term(rng: random.Random) -> str:
    low, high = rng.randrange(12), rng.randrange(45)
    kinds = (
        rng.choice(["all", "none", "early", "middle", "late"]),
        f"{low}",
        f"{low}-{high}",
        f"{low}-{high}/{rng.randrange(6)}",
        f"{rng.randrange(101)}%-{rng.randrange(110)}%",
        f"{rng.randrange(50)}.{rng.randrange(100)}%-100%",
        rng.choice(ODD_INDICES),
    )
    strength = rng.choice(["", "", "", f":{rng.randrange(101) / 100}", rng.choice(ODD_STRENGTHS)])
    spaces = rng.choice(["", "", " ", "\t"])
    of_kind = rng.choice([""] * 12 + ["double ", "single ", "vace "])
    return spaces + of_kind + rng.choice(kinds) + strength + spaces


def cases() -> list[tuple[str, int]]:
    rng = random.Random(0)
    texts = {"", ",", "all", "0-8/4", "all, 3:0", "0%-70%", "99999999999999999999",
             "double all, single 0-4/2:0.5", "double  3", "double"}  # fmt: skip
    while len(texts) < 3000:
        texts.add(",".join(term(rng) for _ in range(rng.choice([1, 1, 1, 2, 3, 4]))))
    return [(text, rng.choice(LAYERS)) for text in sorted(texts)]


def head_cases() -> list[tuple[str, int, int]]:
    """Terms of layer masks, most with heads in between indices and strength."""
    rng = random.Random(1)
    texts = {"5@", "@5", "0@0@0", "0:1@0", "all@all", "0@double 0"}
    while len(texts) < 3000:
        terms = []
        for _ in range(rng.choice([1, 1, 1, 2])):
            indices, colon, strength = term(rng).partition(":")
            of_heads = rng.choice(["", "", "@0", "@0-2", "@0-8/4", "@late", "@all", "@none", "@7", "@0%-50%", " @ 1 ",
                                   "@" + rng.choice(ODD_INDICES)])  # fmt: skip
            terms.append(indices + of_heads + colon + strength)
        texts.add(",".join(terms))
    return [(text, rng.choice(LAYERS), rng.choice([9, 12, 24])) for text in sorted(texts)]


def head_strengths_of(text: str, layers: int, heads: int) -> list[float]:
    """As the page has them: all layers of head 0 first."""
    resolved = HeadMask(text).resolve(layers, heads, tuple(BLOCKS.get(layers, ())))
    return [resolved[layer][head] if layer in resolved else 0.0 for head in range(heads) for layer in range(layers)]


def strengths_of(text: str, layers: int) -> list[float]:
    resolved = LayerMask(text).resolve(layers, tuple(BLOCKS.get(layers, ())))
    return [resolved.get(layer, 0.0) for layer in range(layers)]


def in_python(text: str, layers: int) -> dict[str, object]:
    try:
        return {"strengths": strengths_of(text, layers)}
    except SelectionError as error:
        return {"error": kind(str(error))}


def kind(message: str) -> str:
    return next((kind for kind in KINDS if re.search(kind, message)), message)


def test_the_page_reads_as_python_does(node):
    asked = cases()
    run = subprocess.run(
        [node, "--input-type=module", "-e", RUN, MODULE.as_uri()],
        input=json.dumps([(text, layers, BLOCKS.get(layers, [])) for text, layers in asked]),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    refused = 0
    for (text, layers), page in zip(asked, json.loads(run.stdout), strict=True):
        written = page.pop("written", None)
        if "error" in page:
            page["error"] = kind(page["error"])
            refused += 1
        assert page == in_python(text, layers), f"{text!r} for {layers} layers"
        if written is not None:
            assert strengths_of(written, layers) == page["strengths"], f"{text!r} was written as {written!r}"
    assert 0.2 < refused / len(asked) < 0.8, "the generated texts are to hold both kinds in plenty"


def test_the_page_reads_heads_as_python_does(node):
    asked = head_cases()
    run = subprocess.run(
        [node, "--input-type=module", "-e", RUN_HEADS, OF_HEADS.as_uri()],
        input=json.dumps([(*case, BLOCKS.get(case[1], [])) for case in asked]),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    refused = 0
    for case, page in zip(asked, json.loads(run.stdout), strict=True):
        written = page.pop("written", None)
        if "error" in page:
            page["error"] = kind(page["error"])
            refused += 1
        try:
            found: dict[str, object] = {"strengths": head_strengths_of(*case)}
        except SelectionError as error:
            found = {"error": kind(str(error))}
        assert page == found, case
        if written is not None:
            assert head_strengths_of(written, *case[1:]) == page["strengths"], f"{case} was written as {written!r}"
    assert 0.2 < refused / len(asked) < 0.8, "the generated texts are to hold both kinds in plenty"


@pytest.mark.parametrize("name", ["mask_text", "head_mask_text"])
def test_the_modules_own_tests_pass(node, name):
    run = subprocess.run([node, "--test", str(HERE / f"{name}.test.mjs")], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout[-3000:]

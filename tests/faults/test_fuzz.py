"""Whole files, mutated at random: each gives the store as it was, or is refused; nothing else comes of it.

The run in CI takes a few seconds. For a long one, of which the figures are printed:

    VDIT_FUZZ_SECONDS=600 .venv/bin/python -m pytest tests/faults/test_fuzz.py -s

Inputs are tried in a process of its own, which may take a gigabyte of address space more than it has after loading, and
five seconds for each input. What it finds is printed by hypothesis, with the file as base64; it becomes a case in
`test_forged_files.py`.
"""

from __future__ import annotations

import base64
import json
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from faults.broken_files import parts, promptly, together
from hypothesis import HealthCheck, Phase, given, note, seed, settings
from hypothesis import strategies as st
from synthetic_host import SyntheticHost

from vdit_core.recording.recorder import Recorder
from vdit_core.recording.store import AttentionStore, StoreFileError
from vdit_core.recording.store.format import digest
from vdit_core.selection import Indices, Selection

TESTS = Path(__file__).parents[1]
CPU = torch.device("cpu")
ROOM = 2**30

#: What may stand in place of a value of the JSON.
VALUES: list[Any] = [
    0,
    1,
    -1,
    2,
    3,
    8,
    127,
    128,
    255,
    2**31,
    2**32,
    2**53,
    2**63 - 1,
    2**63,
    2**64 - 1,
    2**64,
    10**30,
    -(2**63),
]
VALUES += [
    0.0,
    -0.0,
    0.5,
    1.0,
    1e308,
    5e-324,
    float("inf"),
    float("nan"),
    True,
    False,
    None,
    "",
    "0",
    "F32",
    "BF16",
    "I8",
    "float16",
]
VALUES += [
    "__metadata__",
    "../x",
    "/etc/passwd",
    "\0",
    "\ud800",
    "é",
    "a" * 5000,
    [],
    {},
    [0],
    [[]],
    [0, 0],
    {"a": 1},
    10**400,
]

#: What may stand in the text of the JSON.
TEXTS = [
    "1e400",
    "-1e400",
    "NaN",
    "Infinity",
    "1" * 5000,
    "1.0",
    "-0",
    "[" * 3000,
    "]" * 50,
    "{" * 200,
    '"',
    "\\",
    "\\ud800",
]
TEXTS += [
    "{}",
    "[]",
    ",",
    ":",
    "null",
    "true",
    " " * 100,
    "\n",
    "\0",
    "\ufeff",
    "é",
    '"__metadata__":{},',
    '"a":1,',
    "//",
]

#: What the file may say of its header's length.
LENGTHS = [
    0,
    1,
    7,
    8,
    2**16,
    2**24,
    10**8,
    10**8 + 1,
    2**31,
    2**32,
    2**40,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 8,
    2**64 - 1,
]


def whole_files(folder: Path) -> list[bytes]:
    """Stores of every kind, as files."""
    few, one = (
        Selection(Indices("0, 2"), steps=Indices("1")),
        Selection(Indices("1"), Indices("0"), Indices("0"), "cond"),
    )
    kinds = [(few, {}), (few, {"quantization": "int8"}), (one, {}), (Selection(Indices("none")), {}), (Selection(), {})]
    files = []
    for n, (selection, options) in enumerate(kinds):
        recorder = Recorder(selection, **options)
        SyntheticHost(dtype=[torch.float32, torch.bfloat16][n % 2], head_dim=4).run(1, recorder)
        recorder.take().save(folder / "whole.safetensors")
        files.append((folder / "whole.safetensors").read_bytes())
    return files


# Mutations: (random, content, all whole files) -> content.


def flip_bits(random: Random, content: bytes, others: list[bytes]) -> bytes:
    changed = bytearray(content)
    for _ in range(random.randint(1, 8)):
        place = _place(random, content)
        if place < len(changed):
            changed[place] ^= 1 << random.randint(0, 7)
    return bytes(changed)


def set_bytes(random: Random, content: bytes, others: list[bytes]) -> bytes:
    place, length = _place(random, content), random.randint(1, 16)
    return content[:place] + bytes(random.randint(0, 255) for _ in range(length)) + content[place + length :]


def cut(random: Random, content: bytes, others: list[bytes]) -> bytes:
    return content[: _place(random, content)]


def leave_out(random: Random, content: bytes, others: list[bytes]) -> bytes:
    place = _place(random, content)
    return content[:place] + content[place + random.choice([1, 2, 4, 8, 64, 1024]) :]


def put_in(random: Random, content: bytes, others: list[bytes]) -> bytes:
    place = _place(random, content)
    return content[:place] + bytes([random.randint(0, 255)]) * random.choice([1, 2, 8, 64, 4096]) + content[place:]


def splice(random: Random, content: bytes, others: list[bytes]) -> bytes:
    other = random.choice(others)
    return content[: _place(random, content)] + other[_place(random, other) :]


def repeat(random: Random, content: bytes, others: list[bytes]) -> bytes:
    place = _place(random, content)
    piece = content[place : place + random.choice([1, 8, 100, 1000])]
    return content[:place] + piece * random.randint(2, 5) + content[place + len(piece) :]


def other_length(random: Random, content: bytes, others: list[bytes]) -> bytes:
    near = int.from_bytes(content[:8], "little") + random.randint(-16, 16)
    said = random.choice([*LENGTHS, max(0, near), len(content) - 8, len(content)])
    return (said % 2**64).to_bytes(8, "little") + content[8:]


def other_text(random: Random, content: bytes, others: list[bytes]) -> bytes:
    """Something else at a place in the header's text, whose length is then right."""
    size = int.from_bytes(content[:8], "little")
    text = content[8 : 8 + size]
    place = random.randint(0, len(text))
    new = (
        text[:place]
        + random.choice(TEXTS).encode("utf-8", "surrogatepass")
        + text[place + random.choice([0, 0, 1, 4]) :]
    )
    return together(new, content[8 + size :])


def other_header(random: Random, content: bytes, others: list[bytes]) -> bytes:
    header, tensors = parts(content)
    return together(_changed(random, header), tensors)


def other_description(random: Random, content: bytes, others: list[bytes]) -> bytes:
    """The description changed, and signed as if it were true."""
    header, tensors = parts(content)
    metadata = header["__metadata__"]
    name = random.choice(["header", "entries"])
    if random.randint(0, 3):
        metadata[name] = json.dumps(_changed(random, json.loads(metadata[name])))
    else:
        place = random.randint(0, len(metadata[name]))
        metadata[name] = metadata[name][:place] + random.choice(TEXTS) + metadata[name][place + random.randint(0, 2) :]
    if random.randint(0, 7):
        metadata["digest"] = digest(metadata["header"], metadata["entries"])
    return together(header, tensors)


def _place(random: Random, content: bytes) -> int:
    """Most often in the header, often near its ends."""
    size = 8 + min(int.from_bytes(content[:8], "little"), len(content))
    around = random.choice([0, 8, size, len(content)]) + random.randint(-9, 9)
    anywhere = random.choice(
        [around, random.randint(0, size), random.randint(0, size), random.randint(0, len(content))]
    )
    return min(max(0, anywhere), len(content))


def _changed(random: Random, value: Any) -> Any:
    """JSON with something changed somewhere in it."""
    if not isinstance(value, dict | list) or not value or not random.randint(0, 5):
        numbers = [value + 1, value - 1, -value, value * 2, value * 2**32] if type(value) in (int, float) else []
        return random.choice(VALUES + numbers * 6)
    places = list(value) if isinstance(value, dict) else range(len(value))
    place, what = random.choice(list(places)), random.randint(0, 9)
    items = dict(value) if isinstance(value, dict) else list(value)
    if what == 0:
        del items[place]
    elif what == 1 and isinstance(items, dict):
        items[random.choice([*places, "0.q", "9.k", "", "__metadata__", "kind"])] = items.pop(place)
    elif what == 1:
        items.append(items[place])
    elif what == 2:
        items[place], items[places[0]] = items[places[0]], items[place]
    else:
        items[place] = _changed(random, items[place])
    return items


MUTATIONS: list[Callable[[Random, bytes, list[bytes]], bytes]] = [
    flip_bits, set_bytes, cut, leave_out, put_in, splice, repeat, other_length, other_text, other_header, other_header,
    other_description, other_description, other_description,
]  # fmt: skip


def mutated(random: Random, whole: list[bytes]) -> tuple[bytes, bool]:
    """What becomes of a whole file, and whether it was signed anew."""
    content, signed = random.choice(whole), False
    for _ in range(random.choice([1, 1, 1, 2, 2, 3, 5])):
        change = random.choice(MUTATIONS)
        try:
            content = change(random, content, whole)
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            IndexError,
            RecursionError,
            OverflowError,
            struct.error,
        ):
            continue  # it can no longer be taken apart
        signed = signed or change is other_description
    return content, signed


def check(path: Path, content: bytes, signed: bool, known: list[AttentionStore]) -> str:
    """What became of opening a file: "refused", "as it was" or, if it was signed anew, "another"."""
    path.write_bytes(content)
    with promptly(5):
        try:
            store = AttentionStore.load(path)
        except StoreFileError as error:
            said = str(error)
        else:
            return _read(store, signed, known)
    assert said.startswith(f"{path} is not a whole attention store: ")
    assert len(said) < 20_000
    return "refused"


def _read(store: AttentionStore, signed: bool, known: list[AttentionStore]) -> str:
    for key in store._keys:
        for x in store.get(key, CPU, torch.float32):
            assert tuple(x.shape) == store.header.shape()
    assert str(store)
    if signed:
        return "another"
    assert any(one.header == store.header and list(one._keys) == list(store._keys) for one in known)
    return "as it was"


def fuzz(seconds: float) -> Counter[str]:
    """Try inputs for so long; what came of them."""
    tally: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole, known = whole_files(folder), []
        for n, content in enumerate(whole):
            (folder / f"{n}.safetensors").write_bytes(content)
            known.append(AttentionStore.load(folder / f"{n}.safetensors"))
        _take_no_more_than(ROOM)
        end, batch = time.monotonic() + seconds, 0

        @settings(
            max_examples=400, deadline=None, database=None, phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(st.randoms(use_true_random=False) | st.integers(0, 2**64).map(Random))
        def one_batch(random: Random) -> None:
            content, signed = mutated(random, whole)
            note(f"the file, in base64: {base64.b64encode(content).decode()}")
            tally[check(folder / "a.safetensors", content, signed, known)] += 1

        while time.monotonic() < end:
            batch += 1
            seed(batch if seconds < 60 else int.from_bytes(os.urandom(8), "little"))(one_batch)()
    return tally


def _take_no_more_than(more: int) -> None:
    """The address space of this process may grow by so much."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    now = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + more, now + more))


def test_mutated_files_are_the_store_or_refused():
    seconds = float(os.environ.get("VDIT_FUZZ_SECONDS", 6))
    command = [sys.executable, __file__, str(seconds)]
    environment = os.environ | {"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds * 1.5 + 120, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    tally = json.loads(done.stdout)
    print(f"\n{sum(tally.values())} inputs in {seconds:.0f} s: {tally}")
    assert min(tally["refused"], tally["as it was"], tally["another"]) > 0, "the mutations are too weak, or too strong"


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    print(json.dumps(fuzz(float(sys.argv[1]))))

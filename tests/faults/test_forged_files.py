"""Files whose header is not true: refused when they are opened. First what the safetensors format says of tensors, then
this pack's own description, rightly signed."""

from __future__ import annotations

import json

import pytest
import torch
from faults.broken_files import DEEP, described, parts, refused, together

from vdit_core.recording.store import AttentionStore

CPU = torch.device("cpu")

#: What the file says of its header's length, by the truth and the file's size.
LENGTHS = [
    ("0", lambda true, size: 0),
    ("1", lambda true, size: 1),
    ("2", lambda true, size: 2),
    ("odd", lambda true, size: true - 1),
    ("one more", lambda true, size: true + 1),
    ("eight less", lambda true, size: true - 8),
    ("eight more", lambda true, size: true + 8),
    ("all of the file", lambda true, size: size - 8),
    ("a byte beyond the file", lambda true, size: size - 7),
    ("with its own eight bytes", lambda true, size: size),
    ("100 MB", lambda true, size: 10**8),
    ("a byte more than 100 MB", lambda true, size: 10**8 + 1),
    ("2**31", lambda true, size: 2**31),
    ("2**32", lambda true, size: 2**32),
    ("2**32 and the truth", lambda true, size: 2**32 + true),
    ("2**63 - 1", lambda true, size: 2**63 - 1),
    ("2**63", lambda true, size: 2**63),
    ("2**64 - 8", lambda true, size: 2**64 - 8),
    ("2**64 - 1", lambda true, size: 2**64 - 1),
]


@pytest.mark.parametrize("length", [pytest.param(length, id=name) for name, length in LENGTHS])
def test_a_length_that_is_not_the_headers_is_refused(tmp_path, content, length):
    true = int.from_bytes(content[:8], "little")
    (tmp_path / "a.safetensors").write_bytes(length(true, len(content)).to_bytes(8, "little") + content[8:])
    refused(tmp_path / "a.safetensors")


def tensor(**changes):
    """Change what the file says of its second tensor, `0.k`."""
    return lambda header: header | {"0.k": {k: v for k, v in (header["0.k"] | changes).items() if v is not None}}


def moved(begin: int, end: int):
    def change(header):
        first, last = header["0.k"]["data_offsets"]
        return tensor(data_offsets=[first + begin, last + end])(header)

    return change


def metadata(**changes):
    return lambda header: header | {"__metadata__": header["__metadata__"] | changes}


def named(name: str):
    """The second tensor has another name."""
    return lambda header: {key.replace("0.k", name): value for key, value in header.items()}


def without_part(name: str):
    return lambda header: {key: value for key, value in header.items() if key != name}


def swapped(header):
    """Two tensors lie in each other's place, as the format allows."""
    q, k = header["0.q"]["data_offsets"], header["0.k"]["data_offsets"]
    return tensor(data_offsets=q)(header) | {"0.q": header["0.q"] | {"data_offsets": k}}


EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [4608, 4608]}

#: How the list of tensors is changed, and what is said.
TABLES = [
    ("other dtype", tensor(dtype="F16"), ""),
    (
        "dtype of the same size",
        tensor(dtype="I32"),
        r"tensor 0\.k is I32 \(1, 2, 18, 8\), expected F32 \(1, 2, 18, 8\)",
    ),
    ("no such dtype", tensor(dtype="F31"), ""),
    ("dtype is a number", tensor(dtype=3), ""),
    ("no dtype", tensor(dtype=None), ""),
    ("other shape", tensor(shape=[1, 2, 9, 16]), r"tensor 0\.k is F32 \(1, 2, 9, 16\), expected F32 \(1, 2, 18, 8\)"),
    ("flat", tensor(shape=[288]), r"F32 \(288,\), expected"),
    ("one dimension more", tensor(shape=[1, 1, 2, 18, 8]), r"F32 \(1, 1, 2, 18, 8\), expected"),
    ("smaller shape", tensor(shape=[1, 2, 18, 7]), ""),
    ("empty shape", tensor(shape=[]), ""),
    ("shape with a zero", tensor(shape=[0, 2, 18, 8]), ""),
    ("negative shape", tensor(shape=[-1, -2, 18, 8]), ""),
    ("shape beyond 64 bits", tensor(shape=[2**63, 2, 18, 8]), ""),
    ("shape whose product is right modulo 2**64", tensor(shape=[2**62 + 1, 2, 18, 8]), ""),
    ("shape of floats", tensor(shape=[1.0, 2.0, 18.0, 8.0]), ""),
    ("no shape", tensor(shape=None), ""),
    ("no offsets", tensor(data_offsets=None), ""),
    ("one offset", tensor(data_offsets=[0]), ""),
    ("three offsets", tensor(data_offsets=[0, 1, 2]), ""),
    ("overlapping", moved(-8, -8), ""),
    ("the same place twice", tensor(data_offsets=[0, 1152]), ""),
    ("a gap", moved(8, 8), ""),
    ("a gap at the end", moved(0, -4), ""),
    ("reversed", tensor(data_offsets=[2304, 1152]), ""),
    ("negative", tensor(data_offsets=[-1152, 0]), ""),
    ("beyond the end", moved(10**6, 10**6), ""),
    ("beyond 64 bits", tensor(data_offsets=[2**64, 2**64 + 1152]), ""),
    ("offsets as text", tensor(data_offsets=["1152", "2304"]), ""),
    ("infinite offset", tensor(data_offsets=[0, float("inf")]), ""),
    ("a tensor is missing", without_part("0.k"), ""),
    ("no tensors", lambda header: {"__metadata__": header["__metadata__"]}, ""),
    (
        "an empty one too many",
        lambda header: header | {"9.q": EMPTY},
        r"its tensors are not those its header names \(first: 9\.q\)",
    ),
    ("a name from elsewhere", named("../../etc/passwd"), "its tensors are not those its header names"),
    ("an absolute name", named("/etc/passwd"), "are not those"),
    ("an empty name", named(""), "are not those"),
    ("no metadata", without_part("__metadata__"), "of another kind"),
    ("metadata is a list", lambda header: header | {"__metadata__": []}, ""),
    ("metadata holds a number", metadata(version=1), ""),
    ("other format", metadata(format="pt"), "another kind"),
    ("later version", metadata(version="3"), "format version '3'; this pack reads version 2"),
    ("not signed", metadata(digest=""), "header is damaged"),
    ("other entries", metadata(entries="[]"), "is damaged"),
]


@pytest.mark.parametrize(("change", "said"), [pytest.param(*case, id=name) for name, *case in TABLES])
def test_a_list_of_tensors_that_is_not_true_is_refused(tmp_path, content, change, said):
    header, tensors = parts(content)
    (tmp_path / "a.safetensors").write_bytes(together(change(header), tensors))
    refused(tmp_path / "a.safetensors", said)


#: The header as text or bytes.
TEXTS = [
    ("no JSON", lambda text: "x" + text[1:], ""),
    ("a list", lambda text: "[]", ""),
    ("a number", lambda text: "1", ""),
    ("null", lambda text: "null", ""),
    ("an empty object", lambda text: "{}", ""),
    ("nested deeply", lambda text: '{"a":' + DEEP, ""),
    ("closed and nested deeply", lambda text: '{"a":' + DEEP + "]" * len(DEEP) + "}", ""),
    ("metadata nested deeply", lambda text: '{"__metadata__":{"a":' + "[" * 200 + "]" * 200 + "}}", ""),
    ("1e400", lambda text: text.replace("1152", "1e400", 1), ""),
    ("NaN", lambda text: text.replace("1152", "NaN", 1), ""),
    ("a number of 5000 digits", lambda text: text.replace("1152", "1" * 5000, 1), ""),
    ("not a character", lambda text: text.encode().replace(b"F32", b"F\xff2", 1), ""),
    ("half a character", lambda text: text.replace("F32", "\\ud800", 1), ""),
    ("half a character in the metadata", lambda text: text.replace("vdit", "\\ud800", 1), ""),
    ("a null", lambda text: text.replace("F32", "F\\u0000", 1), ""),
    ("metadata twice", lambda text: text.replace("{", '{"__metadata__":{"format":"pt"},', 1), ""),
    ("a field twice", lambda text: text.replace('"dtype": "F32"', '"dtype": "F32", "dtype": "F32"', 1), ""),
    ("a byte order mark", lambda text: b"\xef\xbb\xbf" + text.encode(), ""),
    ("text behind it", lambda text: text + "x", ""),
    ("a second object", lambda text: text + "{}", ""),
    ("blank", lambda text: " " * len(text), ""),
]


@pytest.mark.parametrize(("change", "said"), [pytest.param(*case, id=name) for name, *case in TEXTS])
def test_a_header_that_is_no_header_is_refused(tmp_path, content, change, said):
    header, tensors = parts(content)
    (tmp_path / "a.safetensors").write_bytes(together(change(json.dumps(header)), tensors))
    refused(tmp_path / "a.safetensors", said)


#: Odd, and still the same store.
HARMLESS = [
    ("swapped", lambda header: json.dumps(swapped(header)), ["k", "q"]),
    ("blanks behind the header", lambda header: json.dumps(header) + " " * 800, ["q", "k"]),
    ("blanks between", lambda header: json.dumps(header, indent=3), ["q", "k"]),
    ("another order", lambda header: json.dumps(dict(reversed(header.items()))), ["q", "k"]),
    ("escaped", lambda header: json.dumps(header).replace("F32", "\\u0046\\u0033\\u0032"), ["q", "k"]),
    (
        "a tensor twice, alike",
        lambda header: f'{{"0.k": {json.dumps(header["0.k"])}, {json.dumps(header)[1:]}',
        ["q", "k"],
    ),
]


@pytest.mark.parametrize(("change", "order"), [pytest.param(*case, id=name) for name, *case in HARMLESS])
def test_what_the_format_allows_is_read(tmp_path, content, change, order):
    header, tensors = parts(content)
    (tmp_path / "plain.safetensors").write_bytes(content)
    (tmp_path / "a.safetensors").write_bytes(together(change(header), tensors))
    plain, store = (AttentionStore.load(tmp_path / name) for name in ("plain.safetensors", "a.safetensors"))
    assert store.header == plain.header
    (key, _) = (key for key in store._keys)
    found = dict(zip(order, store.get(key, CPU, torch.float32), strict=True))
    assert all(torch.equal(found[name], x) for name, x in zip("qk", plain.get(key, CPU, torch.float32), strict=True))


def header_with(**changes):
    return lambda content: described(content, header=json.dumps(of_all(content) | changes))


def of_all(content: bytes) -> dict:
    return json.loads(parts(content)[0]["__metadata__"]["header"])


def entries(*rows):
    return lambda content: described(content, entries=json.dumps(list(rows)))


def without(name: str):
    return lambda content: described(content, json.dumps({k: v for k, v in of_all(content).items() if k != name}))


ROW = [0.8, 0, "cond", 0]
GRID = {"frames": 2, "height": 3, "width": 3, "prefix": 0, "suffix": 0}
MODEL = {"layers": 3, "heads": 2, "head_dim": 8}

#: Rightly signed, and not true: what is changed in the description, and what is said.
DESCRIPTIONS = [
    ("no JSON", lambda content: described(content, header="{"), "header cannot be read .JSONDecodeError"),
    ("a list", lambda content: described(content, header="[]"), "cannot be read"),
    ("a number", lambda content: described(content, header="7"), "cannot be read"),
    ("nested deeply", lambda content: described(content, header=DEEP), "cannot be read .RecursionError"),
    ("entries nested deeply", lambda content: described(content, entries=DEEP), "cannot be read .RecursionError"),
    ("5000 digits", lambda content: described(content, entries="[[" + "1" * 5000 + ',0,"cond",0]]'), "cannot be read"),
    ("no model", without("model"), "cannot be read .KeyError: 'model'"),
    ("no grid", without("grid"), "KeyError: 'grid'"),
    ("no levels", without("sigmas"), "KeyError: 'sigmas'"),
    ("no heads", without("heads"), "KeyError: 'heads'"),
    ("no dtype", without("dtype"), "KeyError: 'dtype'"),
    ("no steps", header_with(sigmas=[]), "has no steps"),
    ("a level that is none", header_with(sigmas=[1.0, None]), "None is not a noise level"),
    ("a level as text", header_with(sigmas=["1.0"]), "'1.0' is not a noise level"),
    (
        "1e400",
        lambda content: described(content, json.dumps(of_all(content)).replace("[1.0", "[1e400")),
        "inf is not a no",
    ),
    ("NaN", header_with(sigmas=[float("nan")]), "nan is not a noise level"),
    ("-Infinity", header_with(sigmas=[float("-inf")]), "-inf is not a noise level"),
    ("a level of 400 digits", header_with(sigmas=[10**400]), "OverflowError"),
    ("an entry's level of 400 digits", entries([10**400, 0, "cond", 0]), "OverflowError"),
    ("levels are a number", header_with(sigmas=1), "cannot be read"),
    ("heads are a number", header_with(heads=2), "cannot be read"),
    ("heads that fall", header_with(heads=[1, 0]), "heads that are not in rising order"),
    ("a head twice", header_with(heads=[0, 0]), "a head twice"),
    ("a head too far", header_with(heads=[0, 2]), "a model of 3 layers x 2 heads x 8 does not have"),
    ("a negative head", header_with(heads=[-1, 0]), "-1 is not a whole number"),
    ("a head as float", header_with(heads=[0.0, 1.0]), "0.0 is not a whole number"),
    ("a head of 400 digits", header_with(heads=[0, 10**400]), "does not have"),
    ("one head", header_with(heads=[0]), r"expected F32 \(1, 1, 18, 8\)"),
    ("no head", header_with(heads=[]), r"expected F32 \(1, 0, 18, 8\)"),
    ("two samples", header_with(samples=2), r"expected F32 \(2, 2, 18, 8\)"),
    ("no samples", header_with(samples=0), r"expected F32 \(0, 2, 18, 8\)"),
    ("samples are true", header_with(samples=True), "True is not a whole number"),
    ("samples beyond 64 bits", header_with(samples=2**64), "expected F32"),
    ("int8", header_with(quantization="int8"), "its tensors are not those its header names"),
    ("another quantization", header_with(quantization="int4"), "quantization 'int4' and dtype 'float32'"),
    ("half the dtype", header_with(dtype="float16"), r"expected F16 \(1, 2, 18, 8\)"),
    ("another dtype", header_with(dtype="float64"), "dtype 'float64'"),
    ("a huge grid", header_with(grid=GRID | {"frames": 10**30}), "expected F32"),
    ("a grid turned", header_with(grid=GRID | {"frames": 3}), r"expected F32 \(1, 2, 27, 8\)"),
    ("a grid without frames", header_with(grid={"height": 3, "width": 3}), "cannot be read"),
    ("a grid with colours", header_with(grid=GRID | {"colours": 3}), "cannot be read"),
    ("a negative grid", header_with(grid=GRID | {"prefix": -9}), "-9 is not a whole number"),
    ("a grid as list", header_with(grid=[2, 3, 3]), "cannot be read .AttributeError"),
    ("a wider model", header_with(model=MODEL | {"head_dim": 16}), r"expected F32 \(1, 2, 18, 16\)"),
    ("a model of fewer layers", header_with(model=MODEL | {"layers": 2}), "that a model of 2 layers"),
    ("a model without heads", header_with(model={"layers": 3, "head_dim": 8}), "cannot be read"),
    ("no model at all", header_with(model=None), "cannot be read"),
    ("an entry twice", entries(ROW, ROW), "lists a call or a head twice"),
    ("an entry missing", entries(ROW), r"its tensors are not those its header names \(first: 1\.k\)"),
    ("an entry too many", entries(ROW, [0.8, 0, "cond", 1], [0.8, 0, "cond", 2]), r"\(first: 2\.k\)"),
    ("no entries", entries(), r"\(first: 0\.k\)"),
    ("a layer too far", entries(ROW, [0.8, 0, "cond", 3]), "that a model of 3 layers"),
    ("a negative layer", entries(ROW, [0.8, 0, "cond", -1]), "-1 is not a whole number"),
    ("a negative visit", entries(ROW, [0.8, -1, "cond", 2]), "-1 is not a whole number"),
    ("a short row", entries(ROW, [0.8, 0, "cond"]), "cannot be read .ValueError"),
    ("a long row", entries(ROW, [*ROW, 0]), "cannot be read .ValueError"),
    ("a row of text", entries(ROW, "abcd"), "is not a noise level"),
    ("entries are an object", lambda content: described(content, entries='{"a": 1}'), "cannot be read .ValueError"),
    ("entries are null", lambda content: described(content, entries="null"), "cannot be read .TypeError"),
]


@pytest.mark.parametrize(("change", "said"), [pytest.param(*case, id=name) for name, *case in DESCRIPTIONS])
def test_a_description_that_is_not_true_is_refused(tmp_path, content, change, said):
    (tmp_path / "a.safetensors").write_bytes(change(content))
    refused(tmp_path / "a.safetensors", said)

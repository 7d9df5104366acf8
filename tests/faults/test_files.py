"""Files that are damaged, forged, of another kind or no files: refused when they are opened. Files that change while
they are used: noticed, never other numbers than those recorded."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest
import torch
from faults.breaking import At
from faults.broken_files import described, make_odd, parts, promptly, together
from safetensors.torch import save as packed
from synthetic_host import SyntheticHost, same

from vdit_core.call import ModelSignature, TokenGrid
from vdit_core.record import Recorder, Selection
from vdit_core.selection import Indices
from vdit_core.sparse.profile import ProfileError, SparseProfile
from vdit_core.store import AttentionStore, StoreFileError
from vdit_core.transfer import Transfer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> bytes:
    """A small store's file: layer 0 and 2, one step, one branch, exact."""
    return made(tmp_path_factory.mktemp("small"), Selection(Indices("0, 2"), steps=Indices("1"), branches="cond"))


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> bytes:
    """More than 200 KB."""
    return made(tmp_path_factory.mktemp("large"), None, grid=TokenGrid(2, 8, 8))


def made(folder: Path, selection: Selection | None, **fields) -> bytes:
    recorder = Recorder(selection)
    SyntheticHost(**fields).run(1, recorder)
    recorder.take().save(folder / "a.safetensors")
    return (folder / "a.safetensors").read_bytes()


def refused(path: Path, said: str = "") -> None:
    """The file is refused by name, with what is wrong and what to do."""
    with promptly(), pytest.raises(StoreFileError, match=said or None) as caught:
        AttentionStore.load(path)
    assert f"{path} is not a whole attention store: " in str(caught.value)
    assert str(caught.value).endswith(". Record it again.")
    assert len(str(caught.value)) < 2000


LARGE = 290_000  # and somewhat more


@pytest.mark.parametrize("kilobytes", range(LARGE // 1024))
def test_a_file_cut_at_any_kilobyte_is_refused(tmp_path, large, kilobytes):
    assert len(large) > LARGE
    (tmp_path / "cut.safetensors").write_bytes(large[: 1024 * kilobytes])
    refused(tmp_path / "cut.safetensors")


HEADER_ENDS = [-9, -8, -1, 0, 1, 7, 8]
CUTS = [("nothing is left", 0), ("in the length", 1), ("before the length's last byte", 7), ("behind the length", 8)]
CUTS += [("behind the header's first byte", 9), ("the last byte is missing", -1), ("two bytes are missing", -2)]


@pytest.mark.parametrize("at", [pytest.param(at, id=name) for name, at in CUTS])
def test_a_file_cut_at_a_border_is_refused(tmp_path, content, at):
    (tmp_path / "cut.safetensors").write_bytes(content[:at])
    refused(tmp_path / "cut.safetensors")


@pytest.mark.parametrize("beyond", HEADER_ENDS)
def test_a_file_cut_near_the_headers_end_is_refused(tmp_path, content, beyond):
    (tmp_path / "cut.safetensors").write_bytes(content[: len(content) - len(parts(content)[1]) + beyond])
    refused(tmp_path / "cut.safetensors")


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
    ("later version", metadata(version="2"), "format version '2'; this pack reads version 1"),
    ("not signed", metadata(digest=""), "header is damaged"),
    ("other entries", metadata(entries="[]"), "is damaged"),
]


@pytest.mark.parametrize(("change", "said"), [pytest.param(*case, id=name) for name, *case in TABLES])
def test_a_list_of_tensors_that_is_not_true_is_refused(tmp_path, content, change, said):
    header, tensors = parts(content)
    (tmp_path / "a.safetensors").write_bytes(together(change(header), tensors))
    refused(tmp_path / "a.safetensors", said)


DEEP = "[" * 100_000

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
    ("heads that fall", header_with(heads=[1, 0]), "heads that do not rise"),
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
    ("int8", header_with(precision="int8"), "its tensors are not those its header names"),
    ("another precision", header_with(precision="int4"), "precision 'int4' and dtype 'float32'"),
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


WEIGHTS = packed({"blocks.0.attn.q": torch.ones(4)})
OTHER = [
    ("a model's weights", lambda content: WEIGHTS, "a safetensors file of another kind"),
    (
        "weights that say they are PyTorch's",
        lambda content: packed({"x": torch.ones(2)}, {"format": "pt"}),
        "another kind",
    ),
    ("no tensors", lambda content: packed({}), "another kind"),
    ("a pickle", lambda content: b"\x80\x04\x95" + bytes(200), ""),
    ("a ZIP", lambda content: b"PK\x03\x04" + bytes(200), ""),
    ("a picture", lambda content: b"\x89PNG\r\n\x1a\n" + bytes(200), ""),
    ("a text", lambda content: b"version https://git-lfs.github.com/spec/v1\n" * 3, ""),
    ("zeros", lambda content: bytes(5000), ""),
    ("ones", lambda content: b"\xff" * 5000, ""),
    ("a profile", lambda content: PROFILE.to_json().encode(), ""),
    ("a byte behind the end", lambda content: content + b"\0", ""),
    ("a page behind the end", lambda content: content + bytes(4096), ""),
    ("itself behind the end", lambda content: content * 2, ""),
    ("a byte before the beginning", lambda content: b"\0" + content, ""),
]


@pytest.mark.parametrize(("change", "said"), [pytest.param(*case, id=name) for name, *case in OTHER])
def test_other_files_are_refused(tmp_path, content, change, said):
    (tmp_path / "a.safetensors").write_bytes(change(content))
    refused(tmp_path / "a.safetensors", said)


NO_FILES = ["directory", "pipe", "link to itself", "links in a ring", "link to nothing", "socket", "device"]
NO_FILES += ["below a file", "name with a null", "nothing"]


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize(
    ("load", "said"),
    [
        (AttentionStore.load, "There is no attention store at "),
        (SparseProfile.load, "There is no sparsity profile at "),
    ],
    ids=["store", "profile"],
)
def test_what_is_no_file_is_none(tmp_path, load, said, kind):
    path = make_odd(kind, tmp_path / "odd")
    with promptly(), pytest.raises(FileNotFoundError) as caught:
        load(path)
    assert str(caught.value) == f"{said}{path}."


@pytest.mark.parametrize("load", [AttentionStore.load, SparseProfile.load], ids=["store", "profile"])
def test_a_name_that_is_too_long_is_said_to_be(tmp_path, load):
    with pytest.raises(OSError, match="File name too long"):
        load(make_odd("name too long", tmp_path / "odd"))


@pytest.mark.parametrize("load", [AttentionStore.load, SparseProfile.load], ids=["store", "profile"])
def test_a_file_that_nobody_may_read_is_said_to_be(content, load):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        path.write_bytes(content)
        path.chmod(0)
        os.chmod(folder, 0o755)
        me = os.geteuid()
        if me == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(PermissionError, match=f"Permission denied: '{path}'"):
                load(path)
        finally:
            os.seteuid(me)


# A file that changes while a transfer reads from it.


def rewritten(path: Path, other: bytes) -> None:
    path.write_bytes(other)


def replaced(path: Path, other: bytes) -> None:
    new = path.with_name("new")
    new.write_bytes(other)
    os.replace(new, path)


def flipped(path: Path, other: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\1\2\3\4")


def by_a_pipe(path: Path, other: bytes) -> None:
    path.unlink()
    os.mkfifo(path)


def by_a_folder(path: Path, other: bytes) -> None:
    path.unlink()
    path.mkdir()


HAS_CHANGED = r"a\.safetensors has changed since it was loaded\. Load it again"
BETWEEN = r"|No such file or directory: .*a\.safetensors"  # as a thread may see it
CHANGES = [
    ("rewritten with other numbers", rewritten, HAS_CHANGED),
    ("replaced by another recording", replaced, HAS_CHANGED),
    ("four bytes are changed", flipped, HAS_CHANGED),
    ("cut by a byte", lambda path, other: os.truncate(path, path.stat().st_size - 1), HAS_CHANGED),
    ("cut in half", lambda path, other: os.truncate(path, path.stat().st_size // 2), HAS_CHANGED),
    ("emptied", lambda path, other: os.truncate(path, 0), HAS_CHANGED),
    ("longer", lambda path, other: os.truncate(path, path.stat().st_size + 4096), HAS_CHANGED),
    ("deleted", lambda path, other: path.unlink(), r"No such file or directory: .*a\.safetensors"),
    (
        "moved away",
        lambda path, other: path.rename(path.with_name("b")),
        r"No such file or directory: .*a\.safetensors",
    ),
    ("replaced by a pipe", by_a_pipe, HAS_CHANGED + BETWEEN),
    ("replaced by a folder", by_a_folder, HAS_CHANGED + BETWEEN),
    (
        "replaced by a link to itself",
        lambda path, other: (path.unlink(), path.symlink_to(path)),
        "symbolic links|No such file",
    ),
]


@pytest.mark.parametrize("call", [0, 6, 13])
@pytest.mark.parametrize(("change", "said"), [pytest.param(*case, id=name) for name, *case in CHANGES])
def test_a_file_that_changes_in_mid_run_ends_it(host, tmp_path, change, said, call):
    path, recorders = tmp_path / "a.safetensors", [Recorder(), Recorder()]
    for seed, recorder in enumerate(recorders):
        host().run(seed, recorder)
    mine, other = (recorder.take() for recorder in recorders)
    other.save(path)
    changed = path.read_bytes()
    mine.save(path)
    os.utime(path, (1, 1))  # so that a change now is a change of the clock's reading, however coarse it is
    transfer, wanted = Transfer(AttentionStore.load(path)), host().run(2, Transfer(mine))
    with promptly(), pytest.raises((StoreFileError, OSError), match=said):
        host().run(2, At(call, lambda: change(path, changed)), transfer)
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    mine.save(path)
    again = Transfer(AttentionStore.load(path))
    assert same(host().run(2, again), wanted)


@pytest.mark.parametrize("part", [0, 1, 2, 3])
def test_a_change_while_an_entry_is_read_is_noticed(host, tmp_path, monkeypatch, part):
    """Before each of an entry's four tensors."""
    path, recorder, made = tmp_path / "a.safetensors", Recorder(precision="int8"), []
    host().run(1, recorder)
    recorder.take().save(path)
    os.utime(path, (1, 1))
    store, plain = AttentionStore.load(path), torch.empty

    def empty(*args, **options):
        made.append(1)
        if len(made) == part + 1:
            flipped(path, b"")
        return plain(*args, **options)

    (key, *_) = store._keys
    monkeypatch.setattr(torch, "empty", empty)
    with pytest.raises(StoreFileError, match=HAS_CHANGED):
        store.get(key, CPU, torch.float32)


def test_a_file_replaced_while_it_is_opened_is_refused(host, tmp_path, content, large, monkeypatch):
    """What is checked is what will be read."""
    import vdit_core.store.reader as reader

    path, plain = tmp_path / "a.safetensors", reader.safe_open
    path.write_bytes(content)

    def opened(*args, **options):
        replaced(path, large)
        return plain(*args, **options)

    monkeypatch.setattr(reader, "safe_open", opened)
    refused(path, "it is being written to")


@pytest.mark.parametrize("step", range(3))
@pytest.mark.parametrize(
    ("change", "said"), [pytest.param(*case, id=name) for name, *case in CHANGES if "mov" not in name]
)
def test_a_recording_on_disk_that_is_changed_is_not_used(host, disk, tmp_path, change, said, step):
    """The shards of a recording that lives on disk: a whole file of other numbers too."""
    said = said.replace(r"a\.safetensors", rf"000{step}\.safetensors")
    recorders = [Recorder(tier="disk", folder=disk), Recorder(tier="disk", folder=disk)]
    for seed, recorder in enumerate(recorders):
        host().run(seed, recorder)
    shards = {recorder: sorted(recorder.store._shelf.path.iterdir()) for recorder in recorders}
    path, other = shards[recorders[0]][step], shards[recorders[1]][step].read_bytes()
    os.utime(path, (1, 1))
    change(path, other)
    with promptly(), pytest.raises((StoreFileError, OSError), match=said):
        host().run(2, Transfer(recorders[0].take()))


# Profiles of sparsity: JSON.


def profile_of(layers: int = 2) -> SparseProfile:
    table = tuple(tuple((0.5 + head, 0.1) for head in range(2)) for _ in range(layers))
    ones = tuple(tuple((1.0, 1.1) for _ in range(2)) for _ in range(layers))
    return SparseProfile(
        ModelSignature(layers, 2, 8), "exact share", 0.5, (0.25, 0.5), table, ones, measured={"seed": 1}
    )


PROFILE = profile_of()
TEXT = PROFILE.to_json()


@pytest.mark.parametrize("share", [n / 32 for n in range(32)])
def test_a_profile_that_is_cut_is_refused(tmp_path, share):
    (tmp_path / "a.json").write_text(TEXT[: int(len(TEXT) * share)])
    with pytest.raises(ProfileError, match=r"a\.json is not a whole sparsity profile: .*\. Measure it again\."):
        SparseProfile.load(tmp_path / "a.json")


def set_to(**changes):
    return json.dumps(json.loads(TEXT) | changes)


PROFILES = [
    ("empty", "", "JSONDecodeError"),
    ("zeros", "\0" * 400, "JSONDecodeError"),
    ("a list", "[]", "JSON of another kind"),
    ("null", "null", "another kind"),
    ("another kind", set_to(format="x"), "another kind"),
    ("later version", set_to(version=2), "version 2; this pack reads version 1"),
    ("nested deeply", DEEP, "RecursionError"),
    ("a table nested deeply", TEXT.replace('"errors": [', '"errors": [' + "[" * 5000 + "]" * 5000 + ","), ""),
    ("text behind it", TEXT + "x", "Extra data"),
    ("two of them", TEXT * 2, "Extra data"),
    ("a byte order mark", "\ufeff" + TEXT, "BOM"),
    ("a number of 5000 digits", TEXT.replace('"keep": 0.5', '"keep": ' + "1" * 5000), "ValueError"),
    ("a number of 400 digits", TEXT.replace('"keep": 0.5', '"keep": 1' + "0" * 400), "OverflowError"),
    ("1e400", TEXT.replace('"keep": 0.5', '"keep": 1e400'), "inf is not a number"),
    ("NaN", set_to(keep=float("nan")), "nan is not a number"),
    ("keep as text", set_to(keep="0.5"), "'0.5' is not a number"),
    ("keep is true", set_to(keep=True), "True is not a number"),
    ("keep twice, the last one counts", TEXT.replace('"keep": 0.5', '"keep": 0.5, "keep": 7'), "keep is 7.0"),
    ("keep above 1", set_to(keep=1.5), "keep is 1.5, and must be from 0 to 1"),
    ("negative keep", set_to(keep=-0.1), "keep is -0.1"),
    ("no such method", set_to(method="x"), "There is no method 'x'"),
    ("half a character as method", set_to(method="\ud800"), "There is no method"),
    ("a method that needs none", set_to(method="mass"), "adapts to each head by itself"),
    ("levels that fall", set_to(levels=[0.5, 0.25]), "must rise and lie between 0 and 1"),
    ("no levels", set_to(levels=[]), "must rise"),
    ("a level of 1", set_to(levels=[0.5, 1.0]), "must rise and lie between 0 and 1"),
    ("a level too many", set_to(levels=[0.1, 0.25, 0.5]), "errors must hold 2 x 2 x 3 numbers, 0 or more"),
    ("a layer too few", set_to(errors=json.loads(TEXT)["errors"][:1]), "errors must hold 2 x 2 x 2 numbers"),
    ("a ragged table", set_to(errors=[[[1, 2], [1]], [[1, 2], [1, 2]]]), "errors must hold"),
    ("a negative error", set_to(errors=[[[-1, 0]] * 2] * 2), "errors must hold 2 x 2 x 2 numbers, 0 or more"),
    ("an error as text", set_to(errors=[[["a", "b"]] * 2] * 2), "'a' is not a number"),
    ("errors are a number", set_to(errors=1), "TypeError"),
    ("no temperature", set_to(temperature=[[[0, 0]] * 2] * 2), "temperature must hold 2 x 2 x 2 numbers, 0.01 or more"),
    ("a layer that is none", set_to(dense_layers=[2]), r"Layers \[2\] are not among the model's 2"),
    ("a negative layer", set_to(dense_layers=[-1]), "-1 is not a whole number"),
    ("a huge model", set_to(model={"layers": 10**9, "heads": 2, "head_dim": 8}), "errors must hold 1000000000 x 2 x 2"),
    ("a model without heads", set_to(model={"layers": 2, "head_dim": 8}), "TypeError"),
    ("no model", set_to(model=None), "AttributeError"),
    ("measured on a list", set_to(measured=[]), "AttributeError"),
    ("measured on something nested", set_to(measured={"a": {}}), "is no plain value"),
    ("a share above 1", set_to(dense_first=2), "dense_first is 2.0, and must be from 0 to 1"),
]


@pytest.mark.parametrize(("text", "said"), [pytest.param(*case, id=name) for name, *case in PROFILES])
def test_a_profile_that_is_not_true_is_refused(tmp_path, text, said):
    (tmp_path / "a.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with promptly(), pytest.raises(ProfileError, match=said or None) as caught:
        SparseProfile.load(tmp_path / "a.json")
    assert f"{tmp_path / 'a.json'} is not a whole sparsity profile: " in str(caught.value)
    assert len(str(caught.value)) < 2000


def test_a_profile_of_extreme_numbers_gives_densities():
    extreme = json.loads(TEXT) | {
        "errors": [[[1e300, 0.0], [5e-324, 1e300]]] * 2,
        "temperature": [[[1e300, 0.01]] * 2] * 2,
    }
    profile = SparseProfile.from_json(json.dumps(extreme))
    densities = profile.densities()
    assert ((densities >= 0) & (densities <= 1)).all()
    assert abs(densities.mean() - 0.5) < 1e-6


def test_profiles_that_are_not_in_utf8_are_refused(tmp_path):
    (tmp_path / "a.json").write_bytes(TEXT.encode("utf-16"))
    with pytest.raises(ProfileError, match="is not a whole sparsity profile"):
        SparseProfile.load(tmp_path / "a.json")

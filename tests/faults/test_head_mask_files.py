"""Files of head masks, which are JSON: cut, of another kind, or not true."""

from __future__ import annotations

import json

import pytest
from faults.broken_files import DEEP, PROFILE, promptly

from vdit_core.head_mask import HeadMask
from vdit_core.selection import SelectionError

TEXT = HeadMask("5@0, 3-7@0-2:0.5", 30, 12).to_json()


def set_to(**changes):
    return json.dumps(json.loads(TEXT) | changes)


@pytest.mark.parametrize("share", [n / 16 for n in range(16)])
def test_a_mask_that_is_cut_is_refused(tmp_path, share):
    (tmp_path / "a.headmask").write_text(TEXT[: int(len(TEXT) * share)])
    with pytest.raises(SelectionError, match=r"a\.headmask is not a whole head mask: .*\. Save the mask again\."):
        HeadMask.load(tmp_path / "a.headmask")


FILES = [
    ("empty", "", "JSONDecodeError"),
    ("zeros", "\0" * 400, "JSONDecodeError"),
    ("a list", "[]", "JSON of another kind"),
    ("a profile", PROFILE.to_json(), "another kind"),
    ("later version", set_to(version=2), "version 2; this pack reads version 1"),
    ("nested deeply", DEEP, "RecursionError"),
    ("text behind it", TEXT + "x", "Extra data"),
    ("no text", json.dumps({"format": "vdit head mask", "version": 1}), "KeyError: 'text'"),
    ("a number as text", set_to(text=5), "is text such as 'all' or '3-7', not 5"),
    ("a text that cannot be read", set_to(text="5@x"), "Cannot read 'x'"),
    ("half a character", set_to(text="\ud800"), "Cannot read"),
    ("a strength above 1", set_to(text="5@0:2"), "Strength 2 in '5@0:2' is out of range"),
    ("layers as text", set_to(layers="30"), "'30' is not a whole number"),
    ("negative heads", set_to(heads=-1), "-1 is not a whole number"),
    ("heads are true", set_to(heads=True), "True is not a whole number"),
]


@pytest.mark.parametrize(("text", "said"), [pytest.param(*case, id=name) for name, *case in FILES])
def test_what_is_no_mask_is_refused_and_says_why(tmp_path, text, said):
    (tmp_path / "a.headmask").write_text(text)
    with promptly(), pytest.raises(SelectionError, match=r"a\.headmask is not a whole head mask") as raised:
        HeadMask.load(tmp_path / "a.headmask")
    assert said in str(raised.value)


def test_a_file_that_is_far_too_large_is_not_read(tmp_path):
    with (tmp_path / "a.headmask").open("wb") as file:
        file.truncate(2**40)  # sparse: it takes no room
    with promptly(), pytest.raises(SelectionError, match=r"larger than 1,048,576 bytes"):
        HeadMask.load(tmp_path / "a.headmask")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "a.headmask").write_bytes(b"\xff\xfe\x80" * 40)
    with pytest.raises(SelectionError, match="not a whole head mask"):
        HeadMask.load(tmp_path / "a.headmask")


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no head mask at"):
        HeadMask.load(tmp_path / "none.headmask")

"""Files that are cut, of another kind, or no files: refused when they are opened."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
import torch
from faults.broken_files import PROFILE, make_odd, parts, promptly, refused
from safetensors.torch import save as packed

from vdit_core.recording.store import AttentionStore
from vdit_core.sparse.profile import SparseProfile

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

"""Valid files taken apart and put together otherwise, and things that are no files at all."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vdit_core.call import ModelSignature
from vdit_core.json_file import JsonFile
from vdit_core.recording.store import AttentionStore, StoreFileError
from vdit_core.recording.store.format import digest
from vdit_core.sparse.profile import SparseProfile

#: JSON that no parser gets to the end of.
DEEP = "[" * 100_000

PROFILE = SparseProfile(
    ModelSignature(2, 2, 8),
    "exact top-k",
    0.5,
    (0.25, 0.5),
    errors=(((0.5, 0.1), (1.5, 0.1)),) * 2,
    temperature=(((1.0, 1.1),) * 2,) * 2,
    measured={"seed": 1},
)


def parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and its tensors."""
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def together(header: dict[str, Any] | bytes | str, tensors: bytes, size: int | None = None) -> bytes:
    """A file with this header; size: what it says of the header's length, if not the truth."""
    text = json.dumps(header) if isinstance(header, dict) else header
    text = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(text) if size is None else size) + text + tensors


def described(content: bytes, header: str | None = None, entries: str | None = None) -> bytes:
    """The file with another description of what it holds, rightly signed: texts of JSON."""
    whole, tensors = parts(content)
    metadata = whole["__metadata__"]
    metadata["header"] = metadata["header"] if header is None else header
    metadata["entries"] = metadata["entries"] if entries is None else entries
    metadata["digest"] = digest(metadata["header"], metadata["entries"])
    return together(whole, tensors)


def refused(path: Path, said: str = "") -> None:
    """The file is refused by name, with what is wrong and what to do."""
    with promptly(), pytest.raises(StoreFileError, match=said or None) as caught:
        AttentionStore.load(path)
    assert f"{path} is not a whole attention store: " in str(caught.value)
    assert str(caught.value).endswith(". Record it again.")
    assert len(str(caught.value)) < 2000


@contextmanager
def promptly(seconds: float = 10) -> Iterator[None]:
    """Whatever hangs is broken off."""

    def late(*_) -> None:
        raise TimeoutError(f"nothing came of it in {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def make_odd(kind: str, path: Path) -> Path:
    """Something that is no file to be read: returns where it is."""
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to itself":
        path.symlink_to(path)
    elif kind == "links in a ring":
        path.symlink_to(path.with_name("other"))
        path.with_name("other").symlink_to(path)
    elif kind == "link to nothing":
        path.symlink_to(path.with_name("nothing"))
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(path.parent)  # the name of a socket must be short
        try:
            socket.socket(socket.AF_UNIX).bind(path.name)
        finally:
            os.chdir(here)
    elif kind == "device":
        return Path("/dev/zero")
    elif kind == "below a file":
        path.write_bytes(b"")
        return path / "a.safetensors"
    elif kind == "name with a null":
        return path.with_name("a\0b")
    elif kind == "name too long":
        return path.with_name("a" * 300)
    return path


def refuses(kind: type[JsonFile], path: Path, text: str, said: str) -> None:
    """A file with such a text is refused at once, by an error that names it and says this, in few words."""
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with promptly(), pytest.raises(kind.error, match=said or None) as caught:
        kind.load(path)
    assert f"{path} is not a whole {kind.thing}: " in str(caught.value)
    assert len(str(caught.value)) < 2000

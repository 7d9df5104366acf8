"""Reading a store's file entry by entry, so that a store larger than memory can be used."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .format import FILE_DTYPES, read_metadata
from .page_locked import POOL
from .pieces import as_bytes
from .ram import carve, room
from .schema import Entry, Header, Key, StoreFileError


class StoreReader:
    """A whole and valid file; every name, shape and dtype is checked before any tensor is read.

    Entries are read, not mapped: a mapped file that somebody shortens ends the whole process.

    Raises:
        StoreFileError: naming the file and what is wrong with it.
        FileNotFoundError: if there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"There is no attention store at {path}.")
        try:
            with self.path.open("rb") as raw:
                self._state = _state(raw.fileno())
                with safe_open(self.path, framework="pt") as file:
                    self.header, keys = read_metadata(file.metadata() or {})
                    _check_tensors(file, self.header, len(keys))
                size = int.from_bytes(raw.read(8), "little")
                described = json.loads(raw.read(size))
                if not _state(raw.fileno()) == _state(self.path) == self._state:
                    raise StoreFileError("it is being written to")
        except (SafetensorError, StoreFileError, ValueError) as error:
            raise StoreFileError(f"{path} is not a whole attention store: {error}. Record it again.") from None
        self._offsets = {
            name: 8 + size + about["data_offsets"][0] for name, about in described.items() if name != "__metadata__"
        }
        self.numbers = {key: n for n, key in enumerate(keys)}

    def read(self, key: Key, pinned: bool = False) -> Entry:
        """One entry, in RAM; in page-locked RAM if asked for, which a GPU can copy from while it computes.

        Raises:
            StoreFileError: if the file is no longer the one that was checked.
            OSError: as the disk says.
        """
        number = self.numbers[key]
        with open(self.path, "rb", opener=self._open) as file:
            specs = self.header.parts()
            if pinned:
                entry = carve(POOL.take(room(specs)), specs)
            else:
                entry = {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in specs.items()}
            for name, part in entry.items():
                bytes_of = as_bytes(part).numpy().data
                file.seek(self._offsets[f"{number}{name}"])
                if file.readinto(bytes_of) != len(bytes_of):  # buffered files read on until the end
                    raise self._changed()
            if _state(file.fileno()) != self._state:  # in the meantime
                raise self._changed()
            return entry

    def _open(self, path: str, flags: int) -> int:
        """Opens the file that was checked and no other, without waiting: for a pipe in its place one would for ever."""
        file = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
        if _state(file) != self._state:
            os.close(file)
            raise self._changed()
        return file

    def _changed(self) -> StoreFileError:
        return StoreFileError(f"{self.path} has changed since it was loaded. Load it again.")


def _state(file: int | Path) -> tuple[int, int, int]:
    """What changes when a file's content does; of an open file, or of what now lies at a path."""
    state = os.stat(file)
    return state.st_ino, state.st_size, state.st_mtime_ns


def _check_tensors(file: Any, header: Header, entries: int) -> None:
    expected = {f"{n}{name}": spec for n in range(entries) for name, spec in header.parts().items()}
    if odd := sorted(set(file.keys()) ^ set(expected)):
        raise StoreFileError(f"its tensors are not those its header names (first: {odd[0]})")
    for name, (shape, dtype) in expected.items():
        found = file.get_slice(name)
        if tuple(found.get_shape()) != shape or found.get_dtype() != FILE_DTYPES[dtype]:
            raise StoreFileError(
                f"tensor {name} is {found.get_dtype()} {tuple(found.get_shape())}, "
                f"expected {FILE_DTYPES[dtype]} {shape}"
            )

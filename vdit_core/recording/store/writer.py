"""Writing a store's file entry by entry, in any order and from several threads: a recording may be larger than memory.

The safetensors library writes what is in memory, all at once. Its format puts a header before the tensors; the room for
the header is therefore reserved, and what is left of it filled with spaces, as the format allows.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import torch

from .format import FILE_DTYPES, metadata
from .pieces import as_bytes
from .schema import Entry, Header, Key, StoreError


class StoreWriter:
    """A file under way: `reserve` a place for each entry, `write` it there, and at last `finish`.

    Args:
        path: created at once.
        header: of the store.
        expected: all keys that may come; fewer make a smaller header, not a damaged file.

    Raises:
        OSError: as the disk says.
    """

    def __init__(self, path: Path, header: Header, expected: Sequence[Key]) -> None:
        self.path, self.header = Path(path), header
        self._begin = len(self._head(expected))
        sizes = [dtype.itemsize * torch.Size(shape).numel() for shape, dtype in header.parts().values()]
        self._offsets = dict(zip(header.parts(), accumulate(sizes, initial=0), strict=False))
        self._keys: dict[Key, int] = {}
        self._expected = frozenset(expected)
        self._lock = threading.Lock()
        self.path.touch()

    def reserve(self, key: Key) -> int:
        """The number of a new entry.

        Raises:
            StoreError: if it is none of those expected.
        """
        with self._lock:
            if key not in self._expected:
                raise StoreError(f"{key} was not announced when {self.path.name} was begun.")
            return self._keys.setdefault(key, len(self._keys))

    def write(self, number: int, entry: Entry, starts: Mapping[str, int] = MappingProxyType({})) -> None:
        """Put an entry, in RAM, at its place; or a piece of it.

        starts: where in its part what is there of it begins, in bytes; where not told, at the beginning.

        Raises:
            OSError: as the disk says, with the file's name.
        """
        with self._open() as file:
            for name, part in entry.items():
                file.seek(self._begin + number * self.header.entry_bytes() + self._offsets[name] + starts.get(name, 0))
                file.write(as_bytes(part).numpy().data)

    def finish(self) -> None:
        """Write the header: the file is a whole store.

        Raises:
            OSError: as `write`.
        """
        head = self._head(tuple(self._keys))
        size = (self._begin - 8).to_bytes(8, "little")
        with self._open() as file:
            file.write(size + head[8:].ljust(self._begin - 8))

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        try:
            with self.path.open("r+b") as file:
                yield file
        except OSError as error:  # one of writing or closing does not name the file
            raise OSError(error.errno, f"{error.strerror} while writing", str(self.path)) from error

    def _head(self, keys: Sequence[Key]) -> bytes:
        """The beginning of a file with these entries, one behind the other."""
        described: dict[str, object] = {"__metadata__": metadata(self.header, keys)}
        offset = 0
        for number in range(len(keys)):
            for name, (shape, dtype) in self.header.parts().items():
                end = offset + dtype.itemsize * torch.Size(shape).numel()
                described[f"{number}{name}"] = {
                    "dtype": FILE_DTYPES[dtype],
                    "shape": shape,
                    "data_offsets": (offset, end),
                }
                offset = end
        text = json.dumps(described, separators=(",", ":")).encode()
        text = text.ljust(-(-len(text) // 8) * 8)  # tensors begin at multiples of eight bytes
        return len(text).to_bytes(8, "little") + text

"""Where the entries of a store are kept: in RAM, in page-locked RAM, on the GPU, or on disk."""

from __future__ import annotations

import math
import shutil
import sys
import tempfile
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

import torch

from .async_writer import AsyncWriter, release_page_locked
from .reader import StoreReader
from .schema import Entry, Evaluation, Header, Key
from .writer import StoreWriter

#: RAM; page-locked RAM, from which a GPU copies while it computes; where the model is; files.
TIERS = ("RAM", "pinned RAM", "GPU", "disk")

_WRITERS = 4  # one thread fills a page cache more slowly than a GPU computes


def weight(tier: str, header: Header) -> int:
    """How many bytes an entry takes; PyTorch gives out page-locked RAM in powers of two."""
    if tier != "pinned RAM":
        return header.entry_bytes()
    sizes = (math.prod(shape) * dtype.itemsize for shape, dtype in header.parts().values())
    return sum(1 << (size - 1).bit_length() for size in sizes if size)


def new_storage(tier: str, header: Header, calls: Sequence[tuple[str, int]], inside: Path | None = None) -> Storage:
    """A place for a recording.

    Args:
        tier: one of `TIERS`.
        header, calls, inside: as for `Folder`.

    Raises:
        ValueError: for an unknown tier, or one that this machine does not have.
        OSError: as the disk says.
    """
    if tier not in TIERS:
        raise ValueError(f"Tier {tier!r} is not one of {', '.join(TIERS)}.")
    return Folder(inside, header, calls) if tier == "disk" else Memory(tier)


class Storage:
    """Keeps entries by key. Between the first `put` and `finish` nothing is read.

    slow: whether `get` may have to wait for a disk.
    """

    slow = False

    def put(self, key: Key, entry: Entry) -> None:
        """Keep an entry, whose tensors are this storage's from now on.

        Raises:
            OSError: if an earlier one could not be kept.
        """
        raise NotImplementedError

    def get(self, key: Key, pinned: bool = False) -> Entry:
        """An entry as it was put; `pinned` asks for page-locked RAM where it has to be fetched anyway."""
        raise NotImplementedError

    def finish(self) -> None:
        """Wait until all is in its place.

        Raises:
            OSError: if something could not be kept.
        """

    def drop(self) -> None:
        """Leave nothing of it behind."""


class Memory(Storage):
    """Entries as tensors.

    tier: "RAM", "pinned RAM", or "GPU" to leave them on the model's device.
    """

    def __init__(self, tier: str = "RAM") -> None:
        if tier == "pinned RAM" and not torch.cuda.is_available():
            raise ValueError("Page-locked RAM is for an NVIDIA GPU, and there is none; choose RAM.")
        self.tier = tier
        self._entries: dict[Key, Entry] = {}
        self._writing: AsyncWriter | None = None
        self._lock = threading.Lock()  # ComfyUI may call from a thread for each GPU

    def put(self, key: Key, entry: Entry) -> None:
        if self.tier == "GPU" or all(part.device.type == "cpu" for part in entry.values()):
            self._entries[key] = entry
            return
        with self._lock:
            writing = self._writing = self._writing or AsyncWriter(self._keep)
        writing.send(key, entry)

    def _keep(self, key: Key, entry: Entry) -> None:
        """An entry that has come from the GPU, in page-locked RAM."""
        self._entries[key] = entry if self.tier == "pinned RAM" else {name: x.clone() for name, x in entry.items()}

    def get(self, key: Key, pinned: bool = False) -> Entry:
        return self._entries[key]

    def finish(self) -> None:
        if self._writing is not None:
            self._writing.close()
            self._writing = None  # only now: if that was broken off, `drop` has to end it

    def drop(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.abandon()
        self._entries.clear()

    def __del__(self) -> None:
        if getattr(self, "tier", None) == "pinned RAM" and not sys.is_finalizing():
            self._entries.clear()
            release_page_locked()


class Folder(Storage):
    """A new folder of store files, one for each evaluation; it goes with this object.

    Args:
        inside: where the folder is made.
        header: of the store.
        calls: the branches and layers that an evaluation may have.

    Raises:
        OSError: as the disk says.
    """

    slow = True

    def __init__(self, inside: Path | None, header: Header, calls: Sequence[tuple[str, int]]) -> None:
        if inside is not None:
            Path(inside).mkdir(parents=True, exist_ok=True)
        self.path = Path(tempfile.mkdtemp(prefix="vdit-recording-", dir=inside))
        self._gone = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
        self._header, self._calls = header, tuple(calls)
        self._writers: dict[Evaluation, StoreWriter] = {}
        self._readers: dict[Evaluation, StoreReader] = {}
        self._writing: AsyncWriter | None = AsyncWriter(_write, _WRITERS, waiting=1)
        self._lock = threading.Lock()

    def put(self, key: Key, entry: Entry) -> None:
        assert self._writing is not None
        with self._lock:
            writer = self._writers.get(key.evaluation) or self._begin(key.evaluation)
        number = writer.reserve(key)
        self._writing.send((writer, number), entry, lane=number)  # what comes again later is what stays

    def _begin(self, evaluation: Evaluation) -> StoreWriter:
        path = self.path / f"{len(self._writers):04}.safetensors.part"
        expected = [Key(evaluation, branch, layer) for branch, layer in self._calls]
        return self._writers.setdefault(evaluation, StoreWriter(path, self._header, expected))

    def get(self, key: Key, pinned: bool = False) -> Entry:
        return self._readers[key.evaluation].read(key, pinned)

    def finish(self) -> None:
        if self._writing is None:
            return
        self._writing.close()
        self._writing = None  # only now, as above
        for evaluation, writer in self._writers.items():
            writer.finish()
            path = writer.path.rename(writer.path.with_suffix(""))
            self._readers[evaluation] = StoreReader(path)

    def drop(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.abandon()
        self._gone()


def _write(to: tuple[StoreWriter, int], entry: Entry) -> None:
    writer, number = to
    writer.write(number, entry)


class File(Storage):
    """The entries of a saved file, read when they are used."""

    slow = True

    def __init__(self, reader: StoreReader) -> None:
        self._reader = reader

    def get(self, key: Key, pinned: bool = False) -> Entry:
        return self._reader.read(key, pinned)

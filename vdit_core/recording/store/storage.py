"""Where the entries of a store are kept: in RAM, in page-locked RAM, on the GPU, or on disk."""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from .async_writer import AsyncWriter
from .departure import Departure, Pack
from .page_locked import POOL, PageLockedPool
from .pieces import Piece
from .preparation import Preparation
from .ram import carve, fresh, pages, room, specs_of
from .reader import StoreReader
from .schema import Entry, Evaluation, Header, Key
from .writer import StoreWriter

#: RAM; page-locked RAM, from which a GPU copies while it computes; where the model is; files.
TIERS = ("RAM", "pinned RAM", "GPU", "disk")

_WRITERS = 4  # one thread fills RAM, or a page cache, more slowly than a GPU computes


def weight(tier: str, header: Header) -> int:
    """How many bytes an entry takes; page-locked RAM is had in whole pages."""
    return pages(room(header.parts())) if tier == "pinned RAM" else header.entry_bytes()


def new_storage(
    tier: str, header: Header, calls: Sequence[tuple[str, int]], inside: Path | None = None, entries: int = 0
) -> Storage:
    """A place for a recording.

    Args:
        tier: one of `TIERS`.
        header, calls, inside: as for `Folder`. entries: as for `Memory`.

    Raises:
        ValueError: for an unknown tier, or one that this machine does not have.
        OSError: as the disk says.
    """
    if tier not in TIERS:
        raise ValueError(f"Tier {tier!r} is not one of {', '.join(TIERS)}.")
    return Folder(inside, header, calls) if tier == "disk" else Memory(tier, header, entries)


class Storage:
    """Keeps entries by key. Between the first `put` and `finish` nothing is read.

    slow: whether `get` may have to wait for a disk.
    """

    slow = False

    def make_room(self, size: int) -> None:
        """An entry of so many bytes is about to be made on a GPU: wait until it has room there.

        Raises:
            OSError: if an earlier one could not be kept.
        """

    def put(self, key: Key, entry: Entry, pack: Pack | None = None) -> None:
        """Keep an entry, whose tensors are this storage's from now on. pack: to be done to it, where it is convenient.

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

    Args:
        tier: "RAM", "pinned RAM", or "GPU" to leave them on the model's device.
        header: of the store. entries: how many will come, as far as that is known: page-locked RAM is prepared for so
            many.
        pool: of page-locked RAM.
    """

    def __init__(
        self, tier: str = "RAM", header: Header | None = None, entries: int = 0, pool: PageLockedPool = POOL
    ) -> None:
        locked = tier == "pinned RAM"
        if locked and pool is POOL and not torch.cuda.is_available():
            raise ValueError("Page-locked RAM is for an NVIDIA GPU, and there is none; choose RAM.")
        self.tier = tier
        self._entries: dict[Key, Entry] = {}
        self._preparation: Preparation | None = None
        if locked and header is not None and entries:
            self._preparation = Preparation(pool, room(header.parts()), entries)
        into = partial(_locked, pool, self._preparation) if locked else _fresh
        departure = partial(Departure, pool)
        self._writing = AsyncWriter(partial(_keep, self._entries), _WRITERS, 4, into, locked, departure)
        self._gone = weakref.finalize(self, _end, self._writing, self._preparation)

    def make_room(self, size: int) -> None:
        if self.tier != "GPU":
            self._writing.make_room(size)

    def put(self, key: Key, entry: Entry, pack: Pack | None = None) -> None:
        if self.tier == "GPU" or all(part.device.type == "cpu" for part in entry.values()):
            self._entries[key] = entry if pack is None else pack(entry)
        else:
            self._writing.send(key, entry, pack)

    def get(self, key: Key, pinned: bool = False) -> Entry:
        return self._entries[key]

    def finish(self) -> None:
        self._writing.close()
        self._gone()

    def drop(self) -> None:
        self._gone()
        self._entries.clear()


def _keep(entries: dict[Key, Entry], key: Key, piece: Piece) -> None:
    entries[key] = piece.parts


def _fresh(entry: Entry) -> Entry:
    specs = specs_of(entry)
    return carve(fresh(room(specs)), specs)


def _locked(pool: PageLockedPool, preparation: Preparation | None, entry: Entry) -> Entry:
    specs = specs_of(entry)
    return carve(pool.take(room(specs)) if preparation is None else preparation.take(), specs)


def _end(writing: AsyncWriter, preparation: Preparation | None = None) -> None:
    """Nothing is under way any more, and no thread is left."""
    writing.abandon()
    if preparation is not None:
        preparation.close()


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
        self._header, self._calls = header, tuple(calls)
        self._writers: dict[Evaluation, StoreWriter] = {}
        self._readers: dict[Evaluation, StoreReader] = {}
        self._writing = AsyncWriter(_write, _WRITERS, waiting=2 * _WRITERS - 1)
        self._gone = weakref.finalize(self, _remove, self._writing, self.path)
        self._lock = threading.Lock()

    def make_room(self, size: int) -> None:
        self._writing.make_room(size)

    def put(self, key: Key, entry: Entry, pack: Pack | None = None) -> None:
        with self._lock:
            writer = self._writers.get(key.evaluation) or self._begin(key.evaluation)
        number = writer.reserve(key)
        self._writing.send((writer, number), entry, pack)

    def _begin(self, evaluation: Evaluation) -> StoreWriter:
        path = self.path / f"{len(self._writers):04}.safetensors.part"
        expected = [Key(evaluation, branch, layer) for branch, layer in self._calls]
        return self._writers.setdefault(evaluation, StoreWriter(path, self._header, expected))

    def get(self, key: Key, pinned: bool = False) -> Entry:
        return self._readers[key.evaluation].read(key, pinned)

    def finish(self) -> None:
        self._writing.close()
        for evaluation, writer in self._writers.items():
            writer.finish()
            path = writer.path.rename(writer.path.with_suffix(""))
            self._readers[evaluation] = StoreReader(path)

    def drop(self) -> None:
        self._gone()


def _write(to: tuple[StoreWriter, int], piece: Piece) -> None:
    writer, number = to
    writer.write(number, piece.parts, piece.starts)


def _remove(writing: AsyncWriter, path: Path) -> None:
    writing.abandon()
    shutil.rmtree(path, ignore_errors=True)


class File(Storage):
    """The entries of a saved file, read when they are used."""

    slow = True

    def __init__(self, reader: StoreReader) -> None:
        self._reader = reader

    def get(self, key: Key, pinned: bool = False) -> Entry:
        return self._reader.read(key, pinned)

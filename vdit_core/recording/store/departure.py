"""How entries leave a GPU: beside what it computes, into page-locked RAM."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .page_locked import POOL, PageLockedPool
from .pieces import as_bytes, nbytes
from .schema import Entry

#: Turns an entry of queries and keys into one that is packed.
Pack = Callable[[Entry], Entry]


def on_gpu(entry: Entry) -> bool:
    """Whether a GPU holds an entry."""
    return any(part.device.type == "cuda" for part in entry.values())


def reached(entry: Entry) -> torch.cuda.Event:
    """What says that the GPU has come to this point of the stream that computes. Who waits for it sleeps."""
    stream = torch.cuda.current_stream(_device(entry))
    event = torch.cuda.Event(blocking=True)
    event.record(stream)
    return event


def _device(entry: Entry) -> torch.device:
    return next(iter(entry.values())).device


class Departure:
    """One thread's way off a GPU: a stream for each GPU, and a page-locked buffer for what goes on from there.

    Each method returns when the GPU is done. What it was given can then be let go.
    """

    def __init__(self, pool: PageLockedPool = POOL) -> None:
        self._pool = pool
        self._streams: dict[torch.device, torch.cuda.Stream] = {}
        self._buffer: Tensor | None = None

    def packed(self, entry: Entry, pack: Pack, after: torch.cuda.Event) -> Entry:
        """A packed entry, on the GPU."""
        with torch.cuda.stream(self._stream(entry)):
            torch.cuda.current_stream().wait_event(after)
            given = pack(entry)
            done = reached(given)
        done.synchronize()
        return given

    def copy(self, parts: Entry, into: Entry, after: torch.cuda.Event) -> None:
        """Copy parts into memory of the same names, shapes and types."""
        with torch.cuda.stream(self._stream(parts)):
            torch.cuda.current_stream().wait_event(after)
            for name, part in parts.items():
                into[name].copy_(part, non_blocking=True)
            arrived = reached(parts)
        self._pool.in_use(into.values(), arrived)
        arrived.synchronize()

    def fetch(self, parts: Entry, after: torch.cuda.Event) -> Entry:
        """The bytes of contiguous parts, in a buffer that the next call uses again."""
        size = nbytes(parts)
        if self._buffer is None or len(self._buffer) < size:
            with torch.cuda.stream(self._stream(parts)):  # RAM is locked for a GPU
                self._buffer = self._pool.take(size)
        given = {name: as_bytes(part) for name, part in parts.items()}
        ends = [0]
        for data in given.values():
            ends.append(ends[-1] + len(data))
        into = {name: self._buffer[ends[n] : ends[n + 1]] for n, name in enumerate(given)}
        self.copy(given, into, after)
        return into

    def _stream(self, entry: Entry) -> torch.cuda.Stream:
        device = _device(entry)
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)
        return self._streams[device]

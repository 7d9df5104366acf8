"""Taking entries off the GPU, and putting them away, while the model goes on computing.

A caller only says which entry there is. Threads do the rest: they wait for the GPU, copy, and deliver, an entry in
pieces, so that several of them serve a burst of a few layers.
"""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

import torch

from .departure import Departure, Pack, on_gpu, reached
from .pieces import Piece, as_bytes, cut, nbytes
from .schema import Entry

#: Bytes that entries may hold on a GPU until they have left it; one entry may be larger.
ON_GPU = 640 * 2**20


class _Sent:
    """An entry under way. after: when it can be read. leaving: bytes that it holds on a GPU. pieces: not delivered
    yet, and on_gpu: not off the GPU yet. into: memory that it goes to, if its pieces are to lie side by side."""

    def __init__(self, to: Hashable, entry: Entry, pack: Pack | None) -> None:
        self.to, self.entry, self.pack = to, entry, pack
        self.after: Any = None
        self.leaving = 0
        self.pieces = self.on_gpu = 0
        self.into: Entry | None = None


class AsyncWriter:
    """Hands entries to `deliver` on threads of its own, in RAM; from a GPU they are copied beside its computing.

    Args:
        deliver: called with whatever was sent with an entry, and each of its pieces, on several threads; the bytes of
            a piece are the callee's until it returns.
        threads: how many deliver at once.
        waiting: how many entries may wait in RAM; then `send` waits, so that it does not fill up.
        into: makes memory for an entry. Its bytes are then copied there, and `deliver` called once, with what is there
            as one piece, to keep.
        direct: whether a GPU copies straight into that memory.
        departure: makes each thread's way off a GPU.
    """

    def __init__(
        self,
        deliver: Callable[[Any, Piece], None],
        threads: int = 1,
        waiting: int = 4,
        into: Callable[[Entry], Entry] | None = None,
        direct: bool = False,
        departure: Callable[[], Departure] = Departure,
    ) -> None:
        self._deliver, self._into, self._direct, self._departure = deliver, into, direct, departure
        self._most_threads, self._most_in_ram = threads, waiting + 1
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._jobs: deque[tuple[_Sent, Piece | None]] = deque()  # without a piece: a whole entry, to begin with
        self._under_way: dict[Hashable, _Sent] = {}
        self._broken = self._ending = False
        self._error: BaseException | None = None

    def make_room(self, size: int) -> None:
        """Wait until an entry of so many bytes may be kept on a GPU for a while.

        Raises:
            Exception: what an earlier delivery raised.
        """

        def has_room() -> bool:
            leaving = sum(sent.leaving for sent in self._under_way.values())
            return self._broken or not leaving or leaving + size <= ON_GPU

        with self._changed:
            self._changed.wait_for(has_room)
            self._check()

    def send(self, to: Hashable, entry: Entry, pack: Pack | None = None) -> None:
        """Take an entry, whose tensors nobody changes any more; `pack` it on the way. What is sent to the same place
        later is delivered later.

        Raises:
            Exception: what an earlier delivery raised.
        """
        sent = _Sent(to, entry, pack)
        if on_gpu(entry):
            sent.after, sent.leaving = reached(entry), nbytes(entry)
        elif any(part.device.type != "cpu" for part in entry.values()):
            sent.entry = {name: part.cpu() for name, part in entry.items()}

        def may_come() -> bool:
            in_ram = sum(not sent.after for sent in self._under_way.values())
            return self._broken or (to not in self._under_way and (sent.after or in_ram < self._most_in_ram))

        with self._changed:
            self._changed.wait_for(may_come)
            self._check()
            if len(self._threads) < self._most_threads:
                thread = threading.Thread(target=self._work, name="vdit async writer", daemon=True)
                thread.start()
                self._threads.append(thread)
            self._under_way[to] = sent
            self._jobs.append((sent, None))
            self._changed.notify_all()

    def close(self) -> None:
        """Wait until everything is delivered.

        Raises:
            Exception: what a delivery raised.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._broken or not self._under_way)
        self._end()
        with self._changed:
            self._check()

    def abandon(self) -> None:
        """Deliver nothing more; returns when no delivery is under way."""
        self._break(None)
        self._end()
        self._under_way.clear()

    def _check(self) -> None:
        if self._broken:
            try:
                raise self._error or RuntimeError("This recording was abandoned.")
            finally:
                self._error = None  # it holds the frames that it went through, and they hold this

    def _break(self, error: BaseException | None) -> None:
        with self._changed:
            if error is None or not self._broken:
                self._error = error
            self._broken = True
            self._jobs.clear()
            self._changed.notify_all()

    def _end(self) -> None:
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        departure = self._departure()
        while (job := self._next()) is not None:
            try:
                self._do(*job, departure)
            except BaseException as error:
                traceback.clear_frames(error.__traceback__)  # they hold the entry
                self._break(error)
            del job

    def _next(self) -> tuple[_Sent, Piece | None] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._ending)
            return self._jobs.popleft() if self._jobs else None

    def _do(self, sent: _Sent, piece: Piece | None, departure: Departure) -> None:
        if piece is not None:
            self._bring(sent, piece, departure)
            return
        entry = sent.entry
        sent.entry = {}
        if sent.pack is not None:
            entry = departure.packed(entry, sent.pack, sent.after) if sent.after else sent.pack(entry)
        if self._into is not None:
            with torch.cuda.device_of(next(iter(entry.values()))):  # RAM is locked for a GPU
                sent.into = self._into(entry)
            if self._direct and sent.after:
                departure.copy(entry, sent.into, sent.after)
                del entry
                self._has_left(sent)
                self._arrived(sent)
                return
        pieces = list(cut(entry))
        del entry
        with self._changed:
            sent.pieces = sent.on_gpu = len(pieces)
            if not self._broken:
                self._jobs.extendleft((sent, piece) for piece in reversed(pieces[1:]))
                self._changed.notify_all()
        first = pieces[0]
        del pieces
        self._bring(sent, first, departure)

    def _bring(self, sent: _Sent, piece: Piece, departure: Departure) -> None:
        if sent.after:
            piece.parts = departure.fetch(piece.parts, sent.after)
            with self._changed:
                sent.on_gpu -= 1
                gone = not sent.on_gpu
            if gone:
                self._has_left(sent)
        if sent.into is None:
            self._deliver(sent.to, piece)
        else:
            for name, part in piece.parts.items():
                data, start = as_bytes(part), piece.starts.get(name, 0)
                # NumPy's copy: PyTorch's calls more threads from each of these, and the model needs the cores.
                as_bytes(sent.into[name])[start : start + len(data)].numpy()[:] = data.numpy()
        with self._changed:
            sent.pieces -= 1
            arrived = not sent.pieces
        if arrived:
            self._arrived(sent)

    def _has_left(self, sent: _Sent) -> None:
        """The GPU holds nothing of it any more."""
        with self._changed:
            sent.leaving = 0
            self._changed.notify_all()

    def _arrived(self, sent: _Sent) -> None:
        if sent.into is not None:
            self._deliver(sent.to, Piece(sent.into, {}))
        with self._changed:
            del self._under_way[sent.to]
            self._changed.notify_all()

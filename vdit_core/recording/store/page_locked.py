"""Page-locked RAM, from and to which a GPU copies while it computes: lent out of a pool, so that it is locked once.

Locking costs about as long as the copy of many such buffers, and giving it back may stop the GPU. PyTorch locks powers
of two; here a buffer has the size that is asked for, in whole pages.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import torch
from torch import Tensor

from .ram import Bytes, as_tensor, mapped, pages, touch

logger = logging.getLogger(__name__)

GRACE = 60.0  # seconds that a buffer is kept for the next run
_PORTABLE = 1  # cudaHostRegisterPortable: for every GPU


class Done(Protocol):
    """What says that a copy has been made, such as a `torch.cuda.Event`."""

    def query(self) -> bool: ...

    def synchronize(self) -> None: ...


def lock(address: int, nbytes: int) -> Any:
    """Page-lock memory for GPUs; returns what `unlock` needs.

    Raises:
        RuntimeError: if the system does not let it.
    """
    device = torch.cuda.current_device()
    error = int(torch.cuda.cudart().cudaHostRegister(address, nbytes, _PORTABLE))
    if error:
        _forget_error(device)
        raise RuntimeError(f"cudaHostRegister gave error {error}")
    return device


def unlock(address: int, device: Any) -> None:
    """Undo `lock`.

    Raises:
        RuntimeError: if that fails.
    """
    with torch.cuda.device(device):
        error = int(torch.cuda.cudart().cudaHostUnregister(address))
        if error:
            _forget_error(device)
            raise RuntimeError(f"cudaHostUnregister gave error {error}")


def _forget_error(device: int) -> None:
    """CUDA keeps a call's error for whatever asks next on this thread, which would be a kernel that is fine."""
    with contextlib.suppress(RuntimeError):
        torch.ones(1, device=f"cuda:{device}").add_(1)


def by_torch(nbytes: int) -> Tensor:
    """Page-locked RAM as PyTorch gives it out, uint8 (nbytes,). Raises RuntimeError if there is none."""
    return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)


def empty_torchs_cache() -> None:
    """Give what PyTorch locked, and nobody uses any more, back to the system."""
    public = getattr(getattr(torch, "accelerator", None), "empty_host_cache", None)  # newer than 2.11
    release = public or getattr(torch._C, "_host_emptyCache", None)
    if release is not None and torch.cuda.is_available():
        release()


@dataclass(eq=False)
class _Buffer:
    """memory: all of it. way: how it was locked, "lock", "by_torch" or "" for not at all. token: of `lock`.
    until: the copies that may still be under way. idle_since: when it came back, in seconds."""

    memory: Bytes
    way: str
    token: Any = None
    until: list[Done] = field(default_factory=list)
    idle_since: float = 0.0

    @property
    def address(self) -> int:
        return int(self.memory.ctypes.data)

    def is_free(self) -> bool:
        return all(done.query() for done in self.until)

    def wait(self) -> None:
        while self.until:
            self.until.pop().synchronize()


class PageLockedPool:
    """Lends page-locked RAM; of any thread.

    Args:
        lock, unlock, by_torch: as the functions of this module.
        grace: seconds after which idle buffers go back to the system; None: only `trim` gives them back.
        clock: in seconds.
    """

    def __init__(
        self,
        lock: Callable[[int, int], Any] = lock,
        unlock: Callable[[int, Any], None] = unlock,
        by_torch: Callable[[int], Tensor] = by_torch,
        grace: float | None = GRACE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._page_lock, self._unlock, self._by_torch = lock, unlock, by_torch
        self._grace, self._clock = grace, clock
        self._lock = threading.Lock()
        self._returned: SimpleQueue[_Buffer] = SimpleQueue()  # a destructor may put into it, wherever it runs
        self._idle: list[_Buffer] = []
        self._lent: dict[int, _Buffer] = {}  # by address
        self._refused: set[str] = set()  # ways that failed; asked again once something was given back
        self._told = False
        self._keeper: threading.Thread | None = None

    @property
    def held(self) -> int:
        """Bytes that are lent or idle."""
        with self._lock:
            self._file_returned()
            return sum(len(buffer.memory) for buffer in (*self._idle, *self._lent.values()))

    @property
    def idle(self) -> int:
        """Bytes that nobody uses, kept for the next to ask."""
        with self._lock:
            self._file_returned()
            return sum(len(buffer.memory) for buffer in self._idle)

    def take(self, nbytes: int) -> Tensor:
        """A buffer, uint8 (nbytes,), of any content. It comes back when it and all its views are gone.

        Where no RAM can be locked it is ordinary RAM, which the log says once.

        Raises:
            MemoryError: if there is none.
        """
        size = pages(max(1, nbytes))
        with self._lock:
            self._file_returned()
            alike = [buffer for buffer in self._idle if len(buffer.memory) == size]
            buffer = next((buffer for buffer in alike if buffer.is_free()), alike[0] if alike else None)
            if buffer is not None:
                self._idle.remove(buffer)
        if buffer is None:
            buffer = self._make(size)
        buffer.wait()
        lent = buffer.memory[:nbytes]  # an array of its own: when it goes, nobody uses the buffer
        with self._lock:
            self._lent[buffer.address] = buffer
            if self._grace is not None and self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, name="page-locked RAM", daemon=True)
                self._keeper.start()
        weakref.finalize(lent, self._returned.put, buffer).atexit = False
        return as_tensor(lent)

    def in_use(self, tensors: Iterable[Tensor], until: Done) -> None:
        """Of those that lie in this pool: their buffers are not lent again before `until`."""
        with self._lock:
            for address in {tensor.untyped_storage().data_ptr() for tensor in tensors}:
                if (buffer := self._lent.get(address)) is not None:
                    buffer.until = [done for done in buffer.until if not done.query()]
                    buffer.until.append(until)

    def trim(self, idle_for: float = 0.0) -> int:
        """Give back what has been idle for so many seconds; returns how many bytes that were."""
        with self._lock:
            self._file_returned()
            latest = self._clock() - idle_for
            going = [buffer for buffer in self._idle if buffer.idle_since <= latest]
            self._idle = [buffer for buffer in self._idle if buffer not in going]
        size, ways = sum(len(buffer.memory) for buffer in going), {buffer.way for buffer in going}
        while going:
            self._give_back(going.pop())
        if "by_torch" in ways:
            empty_torchs_cache()
        if size:
            self._refused.clear()
        return size

    def _file_returned(self) -> None:
        """Buffers that came back become idle."""
        while True:
            try:
                buffer = self._returned.get_nowait()
            except Empty:
                return
            del self._lent[buffer.address]
            buffer.idle_since = self._clock()
            self._idle.append(buffer)

    def _make(self, size: int) -> _Buffer:
        why = "it was refused before"
        if "lock" not in self._refused:
            memory = mapped(size)
            touch(memory)  # the driver would do so with its locks held
            try:
                return _Buffer(memory, "lock", self._page_lock(int(memory.ctypes.data), size))
            except RuntimeError as error:
                why = str(error)
                self._refused.add("lock")
            del memory
        if "by_torch" not in self._refused:
            try:
                return _Buffer(self._by_torch(size).numpy(), "by_torch")
            except RuntimeError as error:
                why += f"; {error}"
                self._refused.add("by_torch")
        if not self._told:
            self._told = True
            logger.warning("VDiT Attention: RAM cannot be page-locked here, so recordings slow sampling down: %s.", why)
        return _Buffer(mapped(size), "")

    def _give_back(self, buffer: _Buffer) -> None:
        buffer.wait()
        if buffer.way == "lock":
            try:
                self._unlock(buffer.address, buffer.token)
            except RuntimeError as error:
                _kept_for_good.append(buffer)  # RAM that a GPU may still write to must not be anybody else's
                logger.warning("VDiT Attention: page-locked RAM could not be given back: %s.", error)

    def _keep(self) -> None:
        """Gives back what is idle for long; ends when there is nothing left."""
        assert self._grace is not None
        while True:
            time.sleep(self._grace / 10)
            self.trim(self._grace)
            with self._lock:
                self._file_returned()
                if not self._idle and not self._lent:
                    self._keeper = None
                    return


_kept_for_good: list[_Buffer] = []

#: Of the whole process.
POOL = PageLockedPool()

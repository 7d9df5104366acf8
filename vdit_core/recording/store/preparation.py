"""Page-locked RAM for a recording that stays in it, locked a little ahead of its use."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import nullcontext

import torch
from torch import Tensor

from .page_locked import PageLockedPool

_AHEAD = 4  # buffers


class Preparation:
    """Takes buffers from a pool on a thread of its own, before they are asked for.

    nbytes: of each buffer. count: how many will be asked for; never more are prepared.
    """

    def __init__(self, pool: PageLockedPool, nbytes: int, count: int) -> None:
        self._pool, self._nbytes, self._left = pool, nbytes, count
        self._changed = threading.Condition()
        self._ready: deque[Tensor] = deque()
        self._making = self._waiting = 0
        self._closed = False
        device = torch.cuda.current_device() if torch.cuda.is_available() else None
        self._thread = threading.Thread(target=self._prepare, args=(device,), name="vdit page-locking", daemon=True)
        self._thread.start()

    def take(self) -> Tensor:
        """A buffer, as `PageLockedPool.take`: prepared, or made now."""
        with self._changed:
            if not self._ready and self._making > self._waiting:  # nobody else waits for the one that is being made
                self._waiting += 1
                self._changed.wait_for(lambda: self._ready or not self._making)
                self._waiting -= 1
            self._left -= 1
            self._changed.notify_all()
            if self._ready:
                return self._ready.popleft()
        return self._pool.take(self._nbytes)

    def close(self) -> None:
        """Prepare no more, and let go of what is left."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._ready.clear()

    def _prepare(self, device: int | None) -> None:
        with nullcontext() if device is None else torch.cuda.device(device):
            while self._is_wanted():
                buffer = None
                try:
                    buffer = self._pool.take(self._nbytes)
                except MemoryError:  # whoever asks next is told
                    return
                finally:
                    with self._changed:
                        self._making = 0
                        if buffer is not None:
                            self._ready.append(buffer)
                        self._changed.notify_all()
                    del buffer

    def _is_wanted(self) -> bool:
        """Waits until another buffer is; false at the end."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self._left <= 0 or len(self._ready) < min(_AHEAD, self._left)
            )
            if self._closed or self._left <= 0:
                return False
            self._making = 1
            return True

"""Page-locking without a GPU: ordinary memory is locked, and copies end when they are told to."""

from __future__ import annotations

import threading
import time

import torch
from torch import Tensor

from vdit_core.recording.store.page_locked import PageLockedPool

PAGE = 4096


class Copy:
    """A copy that a GPU makes until it is told that it is done."""

    def __init__(self) -> None:
        self.done = threading.Event()

    def query(self) -> bool:
        return self.done.is_set()

    def synchronize(self) -> None:
        assert self.done.wait(10)


class System:
    """What the operating system and the driver see; may refuse."""

    def __init__(self, refuse: tuple[str, ...] = ()) -> None:
        self.refuse, self.now, self.delay = refuse, 0.0, 0.0
        self.locked: dict[int, int] = {}  # by address, in bytes
        self.locks = self.most = self.asked = 0
        self._guard = threading.Lock()

    def lock(self, address: int, nbytes: int) -> int:
        time.sleep(self.delay)
        with self._guard:
            self.asked += 1
            if "lock" in self.refuse:
                raise RuntimeError("not enough lockable memory")
            assert address not in self.locked, "the driver refuses what is locked already"
            self.locked[address] = nbytes
            self.locks += 1
            self.most = max(self.most, sum(self.locked.values()))
            return address + 1

    def unlock(self, address: int, token: int) -> None:
        assert token == address + 1
        if "unlock" in self.refuse:
            raise RuntimeError("busy")
        with self._guard:
            del self.locked[address]

    def by_torch(self, nbytes: int) -> torch.Tensor:
        if "by_torch" in self.refuse:
            raise RuntimeError("no page-locked memory")
        return torch.zeros(nbytes, dtype=torch.uint8)

    def pool(self, grace: float | None = None) -> PageLockedPool:
        return PageLockedPool(self.lock, self.unlock, self.by_torch, grace, lambda: self.now)


def lent_after(copy: Copy, pool: PageLockedPool, nbytes: int) -> Tensor:
    """A buffer that is lent only when a copy is done, not before."""
    lent: list[Tensor] = []
    taker = threading.Thread(target=lambda: lent.append(pool.take(nbytes)))
    taker.start()
    taker.join(0.2)
    assert not lent
    copy.done.set()
    taker.join(10)
    return lent[0]

"""Taking tensors off the GPU, and putting them away, while the model goes on computing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore
from typing import Any

import torch

from .schema import Entry

_LEAVING = 1  # entries that a GPU still holds when another one comes


def release_page_locked() -> None:
    """Give page-locked RAM that nobody uses any more back to the system; PyTorch would keep it for the next to ask."""
    public = getattr(getattr(torch, "accelerator", None), "empty_host_cache", None)  # newer than 2.11
    release = public or getattr(torch._C, "_host_emptyCache", None)
    if release is not None:
        release()


class AsyncWriter:
    """Hands entries to `deliver` on threads of its own, in RAM; from a GPU they are copied beside its computing.

    Args:
        deliver: called with whatever was sent with an entry, and the entry; the entry is the callee's to keep or drop.
        threads: how many deliver at once.
        waiting: how many entries may wait for each of them; then `send` waits, so that RAM does not fill up.
    """

    def __init__(self, deliver: Callable[[Any, Entry], None], threads: int = 1, waiting: int = 4) -> None:
        self._deliver = deliver
        self._lanes = [ThreadPoolExecutor(1, "vdit async writer") for _ in range(threads)]
        self._places = [Semaphore(waiting + 1) for _ in range(threads)]
        self._error: BaseException | None = None
        self._streams: dict[torch.device, torch.cuda.Stream] = {}
        self._leaving: deque[torch.cuda.Event] = deque()

    def send(self, to: Any, entry: Entry, lane: int = 0) -> None:
        """Take an entry, whose tensors nobody changes any more. Those of one lane are delivered in their order.

        Raises:
            Exception: what an earlier delivery raised.
        """
        self._check()
        lane %= len(self._lanes)
        entry, arrived = self._to_ram(entry)
        self._places[lane].acquire()
        self._check()  # it may have been abandoned in the meantime
        self._lanes[lane].submit(self._run, self._places[lane], to, entry, arrived)

    def close(self) -> None:
        """Wait until everything is delivered.

        Raises:
            Exception: what a delivery raised.
        """
        self._end(cancel=False)
        self._check()

    def abandon(self) -> None:
        """Deliver nothing more; returns when no delivery is under way."""
        self._error = self._error or RuntimeError("This recording was abandoned.")
        for place in self._places:  # whoever waits for one finds the error
            place.release()
        self._end(cancel=True)

    def _end(self, cancel: bool) -> None:
        for lane in self._lanes:
            lane.shutdown(cancel_futures=cancel)
        if self._streams:
            release_page_locked()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _to_ram(self, entry: Entry) -> tuple[Entry, torch.cuda.Event | None]:
        """The entry in RAM, and what says that it has arrived."""
        device = next(iter(entry.values())).device
        if device.type != "cuda":
            return {name: part.cpu() for name, part in entry.items()}, None
        while len(self._leaving) > _LEAVING:  # the CPU may be many layers ahead of the GPU, whose memory these hold
            self._leaving.popleft().synchronize()
        stream = self._streams.get(device) or self._streams.setdefault(device, torch.cuda.Stream(device))
        stream.wait_stream(torch.cuda.current_stream(device))
        arriving = {}
        with torch.cuda.stream(stream):
            for name, part in entry.items():
                arriving[name] = torch.empty(part.shape, dtype=part.dtype, pin_memory=True)
                arriving[name].copy_(part, non_blocking=True)
                part.record_stream(stream)  # its memory is not given to others before it is copied
            arrived = stream.record_event()
        self._leaving.append(arrived)
        return arriving, arrived

    def _run(self, place: Semaphore, to: Any, entry: Entry, arrived: torch.cuda.Event | None) -> None:
        try:
            if self._error is None:
                if arrived is not None:
                    arrived.synchronize()
                self._deliver(to, entry)
        except BaseException as error:
            self._error = error
        finally:
            place.release()

"""Whether sparse computation is faster than dense here: measured once for each kind of call, then remembered."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

import torch
from torch import Tensor


def seconds(run: Callable[[], Tensor], device: torch.device) -> float:
    """How long one run takes on a device, everything that it launches included."""
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1000
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


class Race:
    """Remembers the seconds of both sides by the kind of call."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[float, float]] = {}

    def run(
        self, kind: Hashable, sparse: Callable[[], Tensor], dense: Callable[[], Tensor], device: torch.device
    ) -> tuple[float, float]:
        """Seconds of (sparse, dense) for a kind of call; both run twice the first time, of which the second counts."""
        if kind not in self._known:
            sparse(), dense()  # compile, choose algorithms, fill caches
            self._known[kind] = seconds(sparse, device), seconds(dense, device)
        return self._known[kind]

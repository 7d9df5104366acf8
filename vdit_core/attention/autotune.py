"""Which of several ways to compute a thing is the fastest here: measured once for a kind of call, then remembered."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Hashable, Sequence

import torch

logger = logging.getLogger(__name__)

Way = Callable[[], object]


def seconds(run: Way, device: torch.device) -> float:
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


class Autotuner:
    """Remembers the seconds of all ways by the kind of call."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[float, ...]] = {}

    def run(self, kind: Hashable, ways: Sequence[Way], device: torch.device) -> tuple[float, ...]:
        """Seconds of each way for a kind of call; all run twice the first time, of which the second counts.

        A way that fails takes for ever, and a warning says why; the last one is the host's own, and may not fail.
        """
        if kind not in self._known:
            *others, last = ways
            warm = [_works(way) for way in others]  # compile, choose algorithms, fill caches
            last()
            times = [seconds(way, device) if works else math.inf for way, works in zip(others, warm, strict=True)]
            self._known[kind] = (*times, seconds(last, device))
        return self._known[kind]


def _works(way: Way) -> bool:
    try:
        way()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        logger.warning("VDiT Attention: a faster way to compute attention fails here and is left out: %s", error)
        return False
    return True

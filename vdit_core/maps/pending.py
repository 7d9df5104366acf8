"""What a GPU has yet to compute: it is copied to the CPU behind it, and nothing waits until it is read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result", covariant=True)
Tag = TypeVar("Tag")


class Pending(Protocol[Result]):
    """Something that will be there."""

    def ready(self) -> bool:
        """Whether `result` need not wait."""
        ...

    def result(self) -> Result:
        """It itself, once it is there."""
        ...


class OnTheWay:
    """Tensors on their way to the CPU, of any dtypes; on a GPU in one copy, on the stream that computes them.

    The copy goes to page-locked memory, which is given back when the tensors are taken.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = list(tensors)
        self._moving = [n for n, x in enumerate(self._tensors) if x.is_cuda]
        # Wide numbers first, so that each begins at a multiple of its width.
        self._moving.sort(key=lambda n: -self._tensors[n].itemsize)
        self._event: torch.cuda.Event | None = None
        if self._moving:
            there = [self._tensors[n] for n in self._moving]
            self._layout = [(x.shape, x.dtype, x.nbytes) for x in there]
            for n in self._moving:
                self._tensors[n] = torch.empty(0)
            flat = torch.cat([x.contiguous().flatten().view(torch.uint8) for x in there])
            self._buffer = torch.empty(flat.shape, dtype=torch.uint8, pin_memory=True).copy_(flat, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(flat.device))

    def ready(self) -> bool:
        return self._event is None or self._event.query()

    def take(self) -> list[Tensor]:
        """The tensors on the CPU, each in memory of its own; waits for them. Once only."""
        if self._event is not None:
            self._event.synchronize()
            parts = self._buffer.split([size for *_, size in self._layout])
            for n, part, (shape, dtype, _) in zip(self._moving, parts, self._layout, strict=True):
                self._tensors[n] = part.view(dtype).view(shape).clone()
            del self._buffer
        return [x if x.device.type == "cpu" else x.cpu() for x in self._tensors]


class Queue(Generic[Tag, Result]):
    """What is on its way, in order: handed to `settle` as soon as it is there, and at the latest when `most` others
    have come behind it."""

    def __init__(self, settle: Callable[[Tag, Result], None], most: int = 4) -> None:
        self._settle, self._most = settle, most
        self._coming: deque[tuple[Tag, Pending[Result]]] = deque()

    def __len__(self) -> int:
        return len(self._coming)

    def add(self, tag: Tag, pending: Pending[Result]) -> None:
        self._coming.append((tag, pending))
        while self._coming and (len(self._coming) > self._most or self._coming[0][1].ready()):
            self._next()

    def settle(self) -> None:
        """Wait for all of it."""
        while self._coming:
            self._next()

    def clear(self) -> None:
        """Let go of all of it."""
        self._coming.clear()

    def _next(self) -> None:
        tag, pending = self._coming.popleft()
        self._settle(tag, pending.result())

"""Interceptors and attention functions that break a run off, or do something in the middle of it."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from vdit_core.call import AttentionCall, Interceptor, Proceed, Run


class At(Interceptor):
    """Does something before the nth call."""

    def __init__(self, call: int, do: Callable[[], object]) -> None:
        self.call, self.do, self.seen = call, do, 0

    def __call__(self, call: AttentionCall, proceed: Proceed) -> Tensor:
        if self.seen == self.call:
            self.do()
        self.seen += 1
        return proceed(call)


class Raises(Interceptor):
    """Raises when a run begins, when it ends, or before or behind its nth call."""

    def __init__(self, error: BaseException, when: str, call: int = 0) -> None:
        self.error, self.when, self.call, self.seen = error, when, call, 0

    def begin(self, run: Run) -> None:
        self.seen = 0
        self._raise_in("begin")

    def __call__(self, call: AttentionCall, proceed: Proceed) -> Tensor:
        here = self.seen == self.call
        self.seen += 1
        if here:
            self._raise_in("before")
        output = proceed(call)
        if here:
            self._raise_in("behind")
        return output

    def end(self, completed: bool) -> None:
        self._raise_in("end")

    def _raise_in(self, place: str) -> None:
        if self.when == place:
            raise self.error


def failing_backend(error: BaseException, at: int | None) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The host's attention, which raises in its nth call; `calls` are those that there were."""

    def backend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        backend.calls.append(q.shape)
        if len(backend.calls) - 1 == at:
            raise error
        return F.scaled_dot_product_attention(q, k, v)

    backend.calls = []
    backend.any_width = True  # so that it is called for several values under one map, too
    return backend

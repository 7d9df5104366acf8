"""Every place where the pack's code asks for memory, counted, and made to fail one at a time."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from vdit_core.recording import quantization
from vdit_core.recording.store.reader import StoreReader
from vdit_core.recording.store.writer import StoreWriter

#: What may give new memory, or needs some inside. Only calls from the pack's own code count.
POINTS: list[tuple[Any, str]] = [(torch, name) for name in ("empty", "empty_like", "zeros", "cat", "lerp", "tensor")]
POINTS += [(Tensor, name) for name in ("clone", "to", "contiguous", "float", "cpu", "__getitem__")]
POINTS += [(quantization, "encode"), (quantization, "decode"), (StoreReader, "read"), (StoreWriter, "write")]


class Allocations:
    """While patched in: counts, remembers what was given out (weakly), and raises `error` in place of one of them.

    fail_at: which one, from 0; None: none.
    """

    def __init__(
        self, patch: pytest.MonkeyPatch, fail_at: int | None = None, error: BaseException | None = None
    ) -> None:
        self.count, self.failed = 0, False
        self.given: list[weakref.ref[Tensor]] = []
        self._fail_at, self._error, self._lock = fail_at, error, threading.Lock()
        for owner, name in POINTS:
            patch.setattr(owner, name, self._counting(getattr(owner, name)))

    def _counting(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            if not sys._getframe(1).f_globals["__name__"].startswith("vdit_core"):
                return plain(*args, **options)
            with self._lock:
                here, self.count = self.count, self.count + 1
            if here == self._fail_at:
                self.failed, error, self._error = True, self._error, None
                raise error  # which is not kept here: its traceback holds all that is to be given back
            given = plain(*args, **options)
            if isinstance(given, Tensor):
                self.given.append(weakref.ref(given))
            return given

        return counted

    def alive(self, but: set[int] = frozenset()) -> int:
        """How many of the tensors that were given out are still there, but those with a memory address of these."""
        there = [tensor for given in self.given if (tensor := given()) is not None]
        return sum(tensor.untyped_storage().data_ptr() not in but for tensor in there if tensor.numel())

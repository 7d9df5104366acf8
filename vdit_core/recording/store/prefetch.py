"""Prefetch: what a transfer needs next is read while the model computes."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from .attention_store import AttentionStore
from .schema import Key

QK = tuple[Tensor, Tensor]


class Prefetch:
    """The entries of a store on a device, in a dtype, fetched by a thread of its own; to a GPU beside its computing."""

    def __init__(self, store: AttentionStore, device: torch.device, dtype: torch.dtype) -> None:
        self._store, self._device, self._dtype = store, device, dtype
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._thread = ThreadPoolExecutor(1, "vdit prefetch") if self._stream or store.on_disk else None
        self._coming: dict[Key, Future[QK]] = {}
        self._lock = threading.Lock()  # a host may call from several threads

    def expect(self, keys: Iterable[Key]) -> None:
        """Begin to fetch these entries, and forget others that were expected and never asked for."""
        if self._thread is None:
            return
        with self._lock:
            wanted = {key: self._coming.pop(key, None) for key in keys}
            self._forget()
            reached = torch.cuda.current_stream(self._device).record_event() if self._stream else None
            for key, future in wanted.items():
                self._coming[key] = future or self._thread.submit(self._fetch, key, reached)

    def get(self, key: Key) -> QK:
        """The q and k of an entry, (samples, heads, tokens, head_dim) each.

        Raises:
            StoreError: as `AttentionStore.get`.
        """
        with self._lock:
            future = self._coming.pop(key, None)
        q, k = future.result() if future is not None else self._fetch(key)
        if self._stream is not None:
            computing = torch.cuda.current_stream(self._device)
            computing.wait_stream(self._stream)
            for x in (q, k):
                x.record_stream(computing)  # its memory is not given to the next entry before it is used
        return q, k

    def close(self) -> None:
        """Let go of what was fetched, and of the thread."""
        with self._lock:
            self._forget()
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def _forget(self) -> None:
        for future in self._coming.values():
            future.cancel()
        self._coming.clear()

    def _fetch(self, key: Key, reached: torch.cuda.Event | None = None) -> QK:
        if reached is not None:
            reached.synchronize()  # what was used before is free: the CPU may be many layers ahead of the GPU
        with torch.cuda.stream(self._stream):  # of no effect where there is none
            return self._store.get(key, self._device, self._dtype)

"""RAM for large entries: mappings of their own, in huge pages where the system has them.

A page of memory is given out, and cleared, at its first write. In pages of 4 KiB one thread then fills hardly more than
a GB a second; in huge pages (2 MiB) it goes about as fast as a copy does. A mapping goes back to the system at once.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .schema import Entry

Bytes = NDArray[np.uint8]

_PAGE = 4096
_LEAST = 2**21  # bytes; what is smaller is left to PyTorch
_ALIGNED = 64  # bytes; where a part of an entry may begin


def fresh(nbytes: int) -> Tensor:
    """Memory for an entry: uint8 (nbytes,), of any content.

    Raises:
        MemoryError: if there is none.
    """
    if nbytes < _LEAST:
        return torch.empty(nbytes, dtype=torch.uint8)
    return as_tensor(mapped(nbytes))


def as_tensor(memory: Bytes) -> Tensor:
    """The same memory as a tensor that any mode of autograd may write to; it keeps the array."""
    with torch.inference_mode(False):
        return torch.from_numpy(memory)


def mapped(nbytes: int) -> Bytes:
    """A mapping of its own, which goes with the array and its views.

    Raises:
        MemoryError: if there is no room for it.
    """
    own = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}
    try:
        memory = mmap.mmap(-1, nbytes, **own)
    except OSError as error:
        raise MemoryError(f"There is no room for {nbytes} bytes: {error}.") from None
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a system that has none
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


def touch(memory: Bytes) -> None:
    """Have the system give out every page now, while other threads go on."""
    memory[::_PAGE] = 0


def pages(nbytes: int) -> int:
    """What so many bytes take in whole pages."""
    return -(-nbytes // _PAGE) * _PAGE


def room(specs: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> int:
    """How many bytes `carve` needs. specs: shape and dtype of each part."""
    return sum(_aligned(torch.Size(shape).numel() * dtype.itemsize) for shape, dtype in specs.values())


def carve(memory: Tensor, specs: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> Entry:
    """The parts of an entry, side by side in memory: uint8 (at least `room`,)."""
    entry, start = {}, 0
    for name, (shape, dtype) in specs.items():
        size = torch.Size(shape).numel() * dtype.itemsize
        entry[name] = memory[start : start + size].view(dtype).view(shape)
        start += _aligned(size)
    return entry


def specs_of(entry: Entry) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype of each part."""
    return {name: (tuple(part.shape), part.dtype) for name, part in entry.items()}


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGNED) * _ALIGNED

"""Entries in pieces: so that several threads put one away, through little page-locked RAM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .schema import Entry

PIECE = 32 * 2**20  # bytes


@dataclass(eq=False)
class Piece:
    """Some bytes of an entry.

    parts: of some or all of its parts; starts: where in the part each begins, in bytes; without one, the part is whole.
    """

    parts: Entry
    starts: dict[str, int]


def nbytes(entry: Entry) -> int:
    """How many bytes the parts of an entry have."""
    return sum(part.numel() * part.itemsize for part in entry.values())


def as_bytes(part: Tensor) -> Tensor:
    """The bytes of a tensor: uint8 (n,), a view if it is contiguous."""
    return part.contiguous().view(-1).view(torch.uint8)


def cut(entry: Entry, most: int | None = None) -> Iterator[Piece]:
    """The bytes of an entry, in pieces of at most so many (`PIECE`); one that is small enough is one piece."""
    most = most or PIECE
    if nbytes(entry) <= most:
        yield Piece(entry, {})
        return
    piece, left = Piece({}, {}), most
    for name, part in entry.items():
        data, start = as_bytes(part), 0
        while start < len(data):
            some = data[start : start + left]
            piece.parts[name], piece.starts[name] = some, start
            start, left = start + len(some), left - len(some)
            if not left:
                yield piece
                piece, left = Piece({}, {}), most
    if piece.parts:
        yield piece

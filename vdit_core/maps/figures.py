"""Figures of some heads as they are computed, and how they become what `MapStatistics` holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .estimate import Estimate, Moments

#: What a figure is estimated from, or itself; tensors begin with (heads,).
Figure = Moments | Estimate | Tensor


def tensors(figure: Figure) -> list[Tensor]:
    """What has to reach the CPU."""
    if isinstance(figure, Moments):
        return [figure.sum, figure.squares, figure.count]
    if isinstance(figure, Estimate):
        return [figure.value] if figure.error is None else [figure.value, figure.error]
    return [figure]


def filled(figure: Figure, found: Iterator[Tensor]) -> Figure:
    """The same figure of other tensors, in the order of `tensors`."""
    if isinstance(figure, Moments):
        return replace(figure, sum=next(found), squares=next(found), count=next(found))
    if isinstance(figure, Estimate):
        return figure.map(lambda _: next(found))
    return next(found)


def joined(parts: Sequence[Figure]) -> Figure:
    """Heads that were computed apart, together again."""
    first = parts[0]
    if len(parts) == 1:
        return first
    same = [torch.cat(list(some)) for some in zip(*map(tensors, parts), strict=True)]
    if isinstance(first, Moments):
        same[2] = first.count
    return filled(first, iter(same))


def read(name: str, figure: Figure, shape: torch.Size) -> Estimate | Tensor:
    """A figure of `MapStatistics`, float32 and beginning with `shape`, (rows, heads)."""
    if isinstance(figure, Tensor):
        return figure.float().unflatten(0, shape)
    if isinstance(figure, Moments):
        figure = figure.estimate()
        if name != "frames":
            figure = figure.map(lambda x: x[:, 0])
        if name in ("entropy", "needed"):
            figure = figure.map(lambda x: x[:, 0])
    return figure.map(lambda x: x.float().unflatten(0, shape))

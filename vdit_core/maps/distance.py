"""How far apart two tokens of a grid are, in time and in space."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..call import TokenGrid


def places(grid: TokenGrid) -> slice:
    """Where the tokens that have a place lie among all tokens."""
    return slice(grid.prefix, grid.tokens - grid.suffix)


def spatial(grid: TokenGrid) -> Tensor:
    """The distance between any two positions of a frame in token widths, Euclidean, rounded down: int64 (HW, HW)."""
    y, x = (part.flatten() for part in torch.meshgrid(*map(torch.arange, (grid.height, grid.width)), indexing="ij"))
    apart = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2
    return apart.double().sqrt().floor().long()


def farthest(grid: TokenGrid) -> int:
    """The largest distance within a frame."""
    return math.isqrt((grid.height - 1) ** 2 + (grid.width - 1) ** 2)


def temporal(grid: TokenGrid) -> Tensor:
    """The distance between any two frames: int64 (F, F)."""
    frames = torch.arange(grid.frames)
    return (frames[:, None] - frames).abs()


def uniform(apart: Tensor, grid: TokenGrid) -> Tensor:
    """What a map without any preference has at each distance, float64: the share of pairs of places that are so far
    apart, times the share of all keys that have a place."""
    placed = grid.frames * grid.height * grid.width / grid.tokens
    return torch.bincount(apart.flatten()).double() / apart.numel() * placed

"""Queries and keys of heads whose attention is known."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vdit_core.call import TokenGrid

SHARP = 60.0


def codes(tokens: int, seed: int = 0) -> Tensor:
    """A direction for each token, all of them at right angles: float32 (tokens, tokens)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(tokens, tokens, generator=generator)).Q


def head(grid: TokenGrid, looks_at: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys, (tokens, tokens) each, of a head that looks at these keys, bool (tokens, tokens), all alike;
    a query that looks at none looks at all."""
    code = codes(grid.tokens)
    q = looks_at.float() @ code * SHARP * math.sqrt(grid.tokens)
    return q, code


def places(grid: TokenGrid) -> tuple[Tensor, Tensor, Tensor]:
    """Of each token of the grid, without prefix and suffix, its frame, row and column."""
    token = torch.arange(grid.frames * grid.height * grid.width)
    size = grid.height * grid.width
    return token // size, token % size // grid.width, token % grid.width


def _within_grid(grid: TokenGrid, looks_at: Tensor) -> Tensor:
    whole = torch.zeros(grid.tokens, grid.tokens, dtype=torch.bool)
    inside = slice(grid.prefix, grid.tokens - grid.suffix)
    whole[inside, inside] = looks_at
    return whole


def own_place(grid: TokenGrid) -> Tensor:
    return torch.eye(grid.tokens, dtype=torch.bool)


def moving(grid: TokenGrid, down: int, right: int) -> Tensor:
    """At the own place in other frames, moved by so much a frame; outside of the picture there is nothing."""
    f, y, x = places(grid)
    gap = f - f[:, None]
    there = (y == y[:, None] + down * gap) & (x == x[:, None] + right * gap) & (gap != 0)
    return _within_grid(grid, there)


def first_frame(grid: TokenGrid) -> Tensor:
    f, _, _ = places(grid)
    return _within_grid(grid, (f == 0).expand(len(f), -1))


def sink(grid: TokenGrid, token: int) -> Tensor:
    at = torch.zeros(grid.tokens, grid.tokens, dtype=torch.bool)
    at[:, token] = True
    return at

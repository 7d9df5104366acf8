"""A part of one map and a part of another: mixing outputs mixes maps, where the values are the same."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def blend(own: Tensor, replaced: Tensor, strengths: Sequence[Sequence[float]]) -> Tensor:
    """Each head (1 - strength) of its own output and strength of the one put in its place.

    Args:
        own, replaced: (rows, heads, queries, head_dim). What is not replaced is the same in both.
        strengths: of each row, of each of its heads; of those at 0 or 1 `replaced` holds what they give.

    Returns:
        `replaced`, written to.
    """
    parts: dict[float, list[tuple[int, int]]] = {}
    for row, of_heads in enumerate(strengths):
        for head, strength in enumerate(of_heads):
            if 0 < strength < 1:
                parts.setdefault(strength, []).append((row, head))
    for strength, places in parts.items():  # one at a time: a tensor of strengths would be rounded to the values' dtype
        rows, heads = (torch.tensor(indices, device=own.device) for indices in zip(*places, strict=True))
        replaced[rows, heads] = torch.lerp(own[rows, heads], replaced[rows, heads], strength)
    return replaced

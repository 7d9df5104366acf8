"""Biases on the scores of keys that give these keys a wanted mass, or none."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

_NONE = -1e4  # what leaves a key out
_QUERIES = 256  # that stand for all
_ROUNDS = 12


def masked(heads: int, tokens: int, keys: Mapping[int, tuple[int, ...]], device: torch.device) -> Tensor:
    """A bias that leaves keys out; keys: head -> tokens. Returns float32 (heads, tokens)."""
    bias = torch.zeros(heads, tokens)
    for head, chosen in keys.items():
        bias[head, list(chosen)] = _NONE
    return bias.to(device, non_blocking=True)


def to_mass(
    q: Tensor,
    k: Tensor,
    wanted: Mapping[int, Mapping[int, float]],
    before: Tensor | None = None,
    only_down: bool = False,
) -> Tensor:
    """A bias that gives keys a wanted mass, mean over rows and queries.

    Found by iteration: of a key with mean mass w and wanted mass m the bias grows by log(m (1 - w) / (w (1 - m))),
    which is exact where all queries give alike.

    Args:
        q, k: (rows, heads, tokens, head_dim).
        wanted: head -> token -> mass, each above 0 and together below 1.
        before: float (heads, tokens), a bias that is there already.
        only_down: whether keys that have less than the wanted mass are left alone.

    Returns:
        float32 (heads, tokens), to be added to what is there.

    Raises:
        ValueError: naming the head whose wanted masses are not within 0 and 1.
    """
    bias = torch.zeros(q.shape[1], q.shape[2], device=q.device)
    for head, masses in wanted.items():
        if not masses:
            continue
        if min(masses.values()) <= 0 or sum(masses.values()) >= 1:
            raise ValueError(f"The masses wanted in head {head} must be above 0 and together below 1: {dict(masses)}.")
        tokens, mass = list(masses), torch.tensor(list(masses.values()), device=q.device)
        step = max(1, q.shape[2] // _QUERIES)
        scores = q[:, head, ::step].float() @ k[:, head].float().mT / math.sqrt(q.shape[-1])
        if before is not None:
            scores = scores + before[head]
        bias[head, tokens] = _solve(scores.flatten(0, 1), tokens, mass, only_down)
    return bias


def _solve(scores: Tensor, tokens: list[int], mass: Tensor, only_down: bool) -> Tensor:
    """scores: (queries, keys). Returns the bias of each token."""
    ours = scores[:, tokens]
    others = scores.index_fill(1, torch.tensor(tokens, device=scores.device), -math.inf).logsumexp(1, keepdim=True)
    bias = torch.zeros_like(mass)
    for _ in range(_ROUNDS):
        together = torch.cat([ours + bias, others], dim=1).softmax(1)[:, :-1]
        now = together.mean(0).clamp(1e-30, 1 - 1e-6)
        bias = bias + torch.log(mass * (1 - now) / (now * (1 - mass)))
        if only_down:
            bias = bias.clamp(max=0.0)
    return bias

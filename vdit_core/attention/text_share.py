"""How much of the attention of the grid's queries goes to what attends together with the grid, such as a prompt."""

from __future__ import annotations

import torch
from torch import Tensor

from ..joint_tokens import JointTokens
from . import reference

QUERIES = 256  # random ones that stand for all


def text_share(q: Tensor, k: Tensor, joint: JointTokens, rows: list[int], heads: list[int], seed: int = 0) -> Tensor:
    """The share of the mass of each map that lies on keys beside the grid's, mean over queries of the grid.

    Of sampled queries an estimate, whose standard error is at most 1 / (2 sqrt(256)) = 3 %.

    Args:
        q, k: (rows, heads, tokens, head_dim), the grid's. joint: what attends with them. rows, heads: which are meant.

    Returns:
        float32 (rows, heads), where q is.
    """
    chosen = torch.randperm(q.shape[2], generator=torch.Generator().manual_seed(seed))[:QUERIES].sort().values
    keys = joint.with_grid(q, k, joint.of_grid()[2])[1]
    some = q[rows][:, heads][:, :, chosen.to(q.device)]
    inside = torch.zeros(some.shape[:2], device=q.device)
    last = joint.k_start + joint.tokens
    bias = None if joint.bias is None else joint.bias[rows][:, None]
    for _, weights in reference.rows(some, keys[rows][:, heads], bias=bias):
        inside += weights[..., joint.k_start : last].sum((2, 3))
    return 1 - inside / len(chosen)

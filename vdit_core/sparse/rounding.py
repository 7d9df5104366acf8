"""Whether int8 queries and keys are good enough: their error beside that of the blocks that are left out anyway."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_QUERIES = 256  # so many, spread evenly, stand for all


def errors(q: Tensor, k: Tensor, v: Tensor, half: Tensor, rounded: Tensor) -> tuple[float, float]:
    """Mean squared differences of outputs at some queries: of the rounded one to the half one, and of that to dense
    attention. Waits for the device.

    Args:
        q, k: (rows, heads, tokens, head_dim). v: (rows, heads, tokens, width); of wide values the first count.
        half, rounded: sparse outputs over the same blocks, (rows, heads, tokens, width).
    """
    tokens, dim = q.shape[2:]
    some = torch.linspace(0, tokens - 1, min(_QUERIES, tokens), device=q.device).long()
    dense = F.scaled_dot_product_attention(q[:, :, some], k, v[..., :dim]).float()
    half, rounded = (x[:, :, some, :dim].float() for x in (half, rounded))
    found = torch.stack([(rounded - half).square().mean(), (half - dense).square().mean()])
    of_rounding, of_leaving_out = found.tolist()
    return of_rounding, of_leaving_out

"""Muon, batched: momentum, orthogonalised by five Newton-Schulz iterations (Jordan et al., 2024).

`torch.optim.Muon` takes matrices only and runs one small iteration per matrix; a small model has a hundred of them,
and convolution kernels besides. Here kernels count as (out, in * taps) matrices, and all of one shape go together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor


def orthogonalise(matrices: Tensor) -> Tensor:
    """Push the singular values of each matrix of a stack (n, rows, columns) towards 1; bfloat16 inside."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Updates weights of two or more dimensions; give biases, norms, first and last layers to AdamW."""

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                by_shape[len(p), p[0].numel()].append(p)
            for (rows, columns), params in by_shape.items():
                grads = [p.grad for p in params if p.grad is not None]
                buffers = [self.state[p].setdefault("momentum", torch.zeros_like(p)) for p in params]
                torch._foreach_lerp_(buffers, grads, 1 - group["momentum"])
                ahead = torch._foreach_lerp(grads, buffers, group["momentum"])  # Nesterov
                update = orthogonalise(torch.stack([g.reshape(rows, columns) for g in ahead]))
                scale = -group["lr"] * max(1.0, rows / columns) ** 0.5
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
                steps = [u.reshape(p.shape) for u, p in zip(update, params, strict=True)]
                torch._foreach_add_(params, steps, alpha=scale)

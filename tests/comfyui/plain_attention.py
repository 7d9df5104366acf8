"""Attention as plain tables in float64, put in the place of a model's own: what the pack's editors must equal."""

from __future__ import annotations

from dataclasses import replace

import inside  # noqa: F401 - makes the pack importable

# isort: split
import torch
from pack.vdit_core.attention import reference
from pack.vdit_core.call import AttentionCall, Interceptor
from pack.vdit_core.sparse.patterns import PATTERNS
from pack.vdit_core.sparse.patterns.always import always, placeless
from pack.vdit_core.sparse.tiled import tile
from pack.vdit_core.sparse.tiling import tiles


class Seen(Interceptor):
    """Keeps each call, with copies of its tensors."""

    def begin(self, run):
        self.run, self.calls = run, []

    def __call__(self, call, proceed):
        q, k, v = (x.clone() for x in (call.q, call.k, call.v))
        joint = call.joint and replace(
            call.joint, **{name: getattr(call.joint, name).clone() for name in ("q", "k", "v")}
        )
        self.calls.append(replace(call, q=q, k=k, v=v, joint=joint))
        return proceed(call)


def whole(call: AttentionCall) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | float]:
    """A call's queries, keys, values and mask, of all that attend, float64."""
    qkv = (call.q, call.k, call.v) if call.joint is None else call.joint.with_grid(call.q, call.k, call.v)
    bias = 0.0 if call.joint is None or call.joint.bias is None else call.joint.bias.double()[:, None, None]
    return *(x.double() for x in qkv), bias


def plain(call: AttentionCall, kept: torch.Tensor | None = None) -> torch.Tensor:
    """The attention of a call, float64 (rows, heads, queries, head_dim)."""
    q, k, v, bias = whole(call)
    scores = q @ k.mT / q.shape[-1] ** 0.5 + bias
    return (scores if kept is None else scores.masked_fill(~kept, float("-inf"))).softmax(-1) @ v


class ByHand(Interceptor):
    """Another run's queries and keys of the grid, call by call."""

    def __init__(self, calls):
        self.calls = iter(calls)

    def __call__(self, call, proceed):
        source = next(self.calls)
        return proceed(replace(call, q=source.q, k=source.k))


class WithoutKey(Interceptor):
    """The first head of the first layer does not see one of the grid's keys."""

    def __init__(self, token: int) -> None:
        self.token = token

    def wants(self, site):
        return site.layer == 0

    def __call__(self, call, proceed):
        q, k, _, _ = whole(call)
        kept = torch.ones(*q.shape[:2], q.shape[2], k.shape[2], dtype=torch.bool)
        kept[:, 0, :, self.token + (call.joint.k_start if call.joint else 0)] = False
        return plain(call, kept).to(call.q.dtype)


class BruteForce(Interceptor):
    """Sparse attention by a table of what every query looks at: a prompt's tokens look at all, all look at them."""

    def __init__(self, method: str, density: float) -> None:
        self.method, self.density = method, density

    def __call__(self, call, proceed):
        q, k, v, bias = whole(call)
        grid, tokens, first = call.site.run.grid, q.shape[2], call.joint.q_start if call.joint else 0
        seen = torch.ones(tokens, dtype=torch.bool) if isinstance(bias, float) else bias[0, 0, 0] > -1e4
        if call.joint:
            before, behind = int(seen[:first].sum()), int(seen[first + grid.tokens :].sum())
            grid = replace(grid, prefix=grid.prefix + before, suffix=grid.suffix + behind)
        of_text = torch.ones(tokens, dtype=torch.bool)
        of_text[first : first + call.q.shape[2]] = False
        kept = torch.ones(*q.shape[:2], tokens, tokens, dtype=torch.bool)
        places = seen.nonzero()[:, 0]
        kept[:, :, places[:, None], places] = self._kept(*(x[:, :, places] for x in (q, k, v)), grid)
        if call.joint:
            kept |= of_text | of_text[:, None]
        return plain(call, kept & seen).to(call.q.dtype)

    def _kept(self, q, k, v, grid):
        q, k, v = (x.float() for x in (q, k, v))
        if self.method == "exact top-k":
            weights = (q.double() @ k.double().mT / q.shape[-1] ** 0.5).softmax(-1)
            return reference.strongest(weights, torch.full(q.shape[:2], self.density).double(), "top-k")
        plan = tiles(grid, q.device)
        mask = PATTERNS[self.method](
            tile(q, k, v, plan), torch.full((q.shape[1],), self.density), always(plan, False), torch.ones(q.shape[1])
        ).to_dense(plan.key_blocks)
        mask = mask | placeless(plan)[:, None]
        place = torch.empty(grid.tokens, dtype=torch.long)
        place[plan.permutation.long()] = torch.arange(grid.tokens)
        return mask[:, :, place // plan.queries][..., place // plan.keys]

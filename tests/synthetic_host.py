"""A host for tests: drives interceptors through a run of random self-attention calls, without any model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from vdit_core.call import AttentionCall, Chain, Interceptor, ModelSignature, Row, Run, Site, TokenGrid

Tensors = tuple[Tensor, Tensor, Tensor]
Outputs = dict[tuple[int, float, int, str, int], Tensor]


def reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as the textbook has it: the map materialised, float64."""
    q, k, v = (x.double() for x in (q, k, v))
    return torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1) @ v


def same(one: Outputs, other: Outputs) -> bool:
    """Whether two runs gave the same, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


@dataclass
class SyntheticHost:
    """Every call of a run gets its own random q, k, v; the same `seed` gives the same ones again."""

    layers: int = 3
    heads: int = 2
    head_dim: int = 8
    grid: TokenGrid = field(default_factory=lambda: TokenGrid(2, 3, 3))
    sigmas: tuple[float, ...] = (1.0, 0.8, 0.5)
    branches: tuple[str, ...] = ("cond", "uncond")
    samples: int = 1
    dtype: torch.dtype = torch.float32
    batched: bool = False  # all branches in one call, uncond first, as ComfyUI does
    kind: str = "wan t2v 16 -> 16"
    absent: frozenset[tuple[int, str]] = frozenset()
    evaluations: int = 1
    one_noise: bool = True

    def describe(self) -> Run:
        signature = ModelSignature(self.layers, self.heads, self.head_dim)
        return Run(signature, self.grid, self.sigmas, self.branches, self.samples, self.dtype, self.kind, self.absent,
                   self.evaluations, self.one_noise)  # fmt: skip

    def tensors(self, seed: int, site: Site) -> Tensors:
        """q, k, v of a call, one row per row of the site."""
        rows = []
        for row in site.rows:
            key = hash((seed, site.layer, site.sigma, site.visit, row.branch == "cond", row.sample)) % 2**31
            generator = torch.Generator().manual_seed(key)
            rows.append(torch.randn(3, self.heads, self.grid.tokens, self.head_dim, generator=generator))
        q, k, v = torch.stack(rows, dim=1).to(self.dtype)
        return q, k, v

    def sites(self, evaluations: tuple[float, ...] | None = None) -> list[Site]:
        """Every call of a run, in order; `evaluations` are the levels visited (the steps' own by default)."""
        run, sites, visits = self.describe(), [], {}
        for sigma in evaluations or self.sigmas:
            visit = visits[sigma] = visits.get(sigma, -1) + 1
            step = run.step_of(sigma)
            rows = {b: tuple(Row(b, i) for i in range(self.samples)) for b in self.branches if run.comes(step, b)}
            groups = [sum(reversed(rows.values()), ())] if self.batched else list(rows.values())
            for group in groups:
                sites += [Site(run, i, step, sigma, visit, group) for i in range(self.layers)]
        return sites

    def run(
        self,
        seed: int,
        *interceptors: Interceptor,
        evaluations: tuple[float, ...] | None = None,
        backend: Callable[..., Tensor] = F.scaled_dot_product_attention,
    ) -> Outputs:
        """The output of every row of every call, by (layer, sigma, visit, branch, sample)."""
        chain, outputs, completed = Chain(interceptors), {}, False
        try:
            chain.begin(self.describe())
            for site in self.sites(evaluations):
                output = chain(AttentionCall(site, *self.tensors(seed, site), backend))
                for row, value in zip(site.rows, output, strict=True):
                    outputs[site.layer, site.sigma, site.visit, row.branch, row.sample] = value
            completed = True
        finally:
            chain.end(completed)
        return outputs

"""The seam: one self-attention call of a video diffusion transformer, and the chain of interceptors around it.

Hosts build `AttentionCall`s; features are `Interceptor`s; nothing here knows either. An empty chain is the host's own
attention, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .attention import Backend, attend


@dataclass(frozen=True)
class ModelSignature:
    """What two models must share for a map of one to fit the other."""

    layers: int
    heads: int
    head_dim: int

    def __str__(self) -> str:
        return f"{self.layers} layers x {self.heads} heads x {self.head_dim}"


@dataclass(frozen=True)
class TokenGrid:
    """How tokens lie in space and time: row-major frames x height x width, with `prefix` tokens before and `suffix`
    tokens after that belong to no place (reference images and the like)."""

    frames: int
    height: int
    width: int
    prefix: int = 0
    suffix: int = 0

    @property
    def tokens(self) -> int:
        return self.prefix + self.frames * self.height * self.width + self.suffix

    def __str__(self) -> str:
        extra = f" + {self.prefix + self.suffix}" if self.prefix or self.suffix else ""
        return f"{self.frames} x {self.height} x {self.width}{extra} = {self.tokens} tokens"


@dataclass(frozen=True)
class Run:
    """What is known of a sampling run before its first attention call.

    sigmas: the noise level at the start of each step, 1 = pure noise, falling; no final zero.
    branches: the guider's passes that will come, e.g. ("cond", "uncond"); samples: batch rows of each.
    dtype: of queries and keys.
    """

    model: ModelSignature
    grid: TokenGrid
    sigmas: tuple[float, ...]
    branches: tuple[str, ...]
    samples: int
    dtype: torch.dtype

    @property
    def steps(self) -> int:
        return len(self.sigmas)

    def step_of(self, sigma: float) -> int:
        """The step whose bracket [own level, next level) a noise level falls in.

        Samplers that evaluate the model inside a step (Heun, SDE) get the step of their own noise level.
        """
        return max(0, sum(level >= sigma * (1 - 1e-5) for level in self.sigmas) - 1)


@dataclass(frozen=True)
class Row:
    """One row of a batch: which branch of guidance, and which sample of that branch."""

    branch: str
    sample: int


@dataclass(frozen=True)
class Site:
    """Where in a run a call happens.

    sigma: the noise level of this model evaluation. visit: how often the run has evaluated this branch at this very
    level before; 0 except for samplers that come back to a level.
    """

    run: Run
    layer: int
    step: int
    sigma: float
    visit: int
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class AttentionCall:
    """One self-attention call, after RoPE and before the softmax.

    q, k, v: (rows, heads, tokens, head_dim), any float dtype. An interceptor may hand on a v that is some whole
    multiple of head_dim wide: several values under one map. backend: the host's attention function.
    """

    site: Site
    q: Tensor
    k: Tensor
    v: Tensor
    backend: Backend

    def dense(self) -> Tensor:
        """What the host would have computed, (rows, heads, tokens, width of v)."""
        return attend(self.q, self.k, self.v, self.backend)


Proceed = Callable[[AttentionCall], Tensor]


class Interceptor:
    """A feature's hook. Observers call `proceed` and look; editors hand on a changed call or compute the output.

    any_grid: whether it can work on calls that have another grid than the run's (context windows, conditioning areas).
    """

    any_grid = False

    def begin(self, run: Run) -> None:
        """Called once, before the run's first attention call: check everything here and raise what is wrong."""

    def wants(self, site: Site) -> bool:
        """False lets the host skip this interceptor, at no cost, for calls that it would pass on unchanged."""
        return True

    def __call__(self, call: AttentionCall, proceed: Proceed) -> Tensor:
        return proceed(call)

    def end(self, completed: bool) -> None:
        """Called once after every run that began, however it ended."""


class Chain(Interceptor):
    """Several interceptors as one; the first is the outermost."""

    def __init__(self, interceptors: Sequence[Interceptor]) -> None:
        self.interceptors = tuple(interceptors)
        self._begun: list[Interceptor] = []

    def begin(self, run: Run) -> None:
        for interceptor in self.interceptors:
            self._begun.append(interceptor)
            interceptor.begin(run)

    def wants(self, site: Site) -> bool:
        return any(interceptor.wants(site) for interceptor in self.interceptors)

    def __call__(self, call: AttentionCall, proceed: Proceed = AttentionCall.dense) -> Tensor:
        for interceptor in reversed([i for i in self.interceptors if i.wants(call.site)]):
            proceed = _bind(interceptor, proceed)
        return proceed(call)

    def end(self, completed: bool) -> None:
        begun, self._begun = self._begun, []
        for interceptor in reversed(begun):
            interceptor.end(completed)


def _bind(interceptor: Interceptor, proceed: Proceed) -> Proceed:
    return lambda call: interceptor(call, proceed)

"""The seam: one self-attention call of a video diffusion transformer, and the chain of interceptors around it.

Hosts build `AttentionCall`s; features are `Interceptor`s; nothing here knows either. An empty chain is the host's own
attention, bit for bit.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from .attention.biased import attend_biased
from .attention.multi_value import Backend, attend, attend_shared
from .errors import VDiTError
from .joint_tokens import JointTokens
from .json_fields import whole_numbers
from .provenance import Provenance


@dataclass(frozen=True)
class ModelSignature:
    """What two models must share for a map of one to fit the other.

    kinds: where a model has several kinds of blocks, each kind's name and number, in the order of the layers.
    """

    layers: int
    heads: int
    head_dim: int
    kinds: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of_blocks(cls, counts: Mapping[str, int], heads: int, head_dim: int) -> ModelSignature:
        """Of a model with so many blocks of each kind; kinds are told only where there are several."""
        kinds = tuple(counts.items()) if len(counts) > 1 else ()
        return cls(sum(counts.values()), heads, head_dim, kinds)

    def as_json(self) -> dict[str, Any]:
        """For files; without kinds, as version 0.1.0-dev wrote it."""
        found: dict[str, Any] = {"layers": self.layers, "heads": self.heads, "head_dim": self.head_dim}
        return found | ({"kinds": dict(self.kinds)} if self.kinds else {})

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> ModelSignature:
        """Raises ValueError or TypeError for anything else."""
        kinds = whole_numbers(found.get("kinds", {}))
        model = cls(**whole_numbers({k: v for k, v in found.items() if k != "kinds"}), kinds=tuple(kinds.items()))
        if kinds and sum(kinds.values()) != model.layers:
            raise ValueError(f"{kinds} are not {model.layers} layers")
        return model

    def __str__(self) -> str:
        kinds = ", ".join(f"{number} {kind}" for kind, number in self.kinds)
        return f"{self.layers} layers{f' ({kinds})' * bool(kinds)} x {self.heads} heads x {self.head_dim}"


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
        extra = f" + {self.prefix}" * bool(self.prefix) + f" + {self.suffix} behind" * bool(self.suffix)
        return f"{self.frames} x {self.height} x {self.width}{extra} = {self.tokens} tokens"


@dataclass(frozen=True)
class Run:
    """What is known of a sampling run before its first attention call.

    sigmas: the noise level at the start of each step, 1 = pure noise, falling; no final zero.
    branches: the guider's passes that will come, e.g. ("cond", "uncond"); samples: batch rows of each.
    dtype: of queries and keys. kind: what else tells models apart, as far as the host knows ("" if not).
    absent: the (step, branch) pairs that will not come, because a prompt is scheduled for other steps.
    evaluations: how often the sampler evaluates a branch in a step, as far as the host knows.
    one_noise: whether all samples start from the same noise; noise_remedy: what to do if they should and do not.
    made: the settings, as far as the host knows them. joint: whether text may attend together with the grid's tokens.
    """

    model: ModelSignature
    grid: TokenGrid
    sigmas: tuple[float, ...]
    branches: tuple[str, ...]
    samples: int
    dtype: torch.dtype
    kind: str = ""
    absent: frozenset[tuple[int, str]] = frozenset()
    evaluations: int = 1
    one_noise: bool = True
    noise_remedy: str = ""
    made: Provenance = field(default_factory=Provenance)
    joint: bool = False

    @property
    def steps(self) -> int:
        return len(self.sigmas)

    def comes(self, step: int, branch: str) -> bool:
        """Whether a branch is computed in a step."""
        return branch in self.branches and (step, branch) not in self.absent

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
class SharedMaps:
    """Which rows of a call have the same q and k, so that one map serves the values of all of them.

    q, k: the tensors of which this is said; nothing is said of any others, such as what an editor puts in their place.
    first: for each row the first one that is like it.
    """

    q: Tensor
    k: Tensor
    first: tuple[int, ...]


@dataclass(frozen=True)
class AttentionCall:
    """One self-attention call, after RoPE and before the softmax.

    q, k, v: (rows, heads, tokens, head_dim), any float dtype: of the grid's tokens. backend: the host's attention
    function, or what an editor put in its place. shared: which rows have one map. sparse_elsewhere: who leaves parts of
    the map out in the host's function, if another tool does. bias: float (heads, tokens), what an editor adds to the
    scores of each key. joint: what attends together with the grid's tokens; the output then is of all of them.
    """

    site: Site
    q: Tensor
    k: Tensor
    v: Tensor
    backend: Backend
    shared: SharedMaps | None = None
    sparse_elsewhere: str | None = None
    bias: Tensor | None = None
    joint: JointTokens | None = None

    def dense(self) -> Tensor:
        """What the host would have computed, (rows, heads, all queries, head_dim)."""
        if self.joint is not None:
            q, k, v = self.joint.with_grid(self.q, self.k, self.v)
            if self.bias is not None:
                return attend_biased(q, k, v, self.joint.key_bias(self.bias))
            return self.backend(q, k, v)
        shared = self.shared
        if self.bias is not None:
            return attend_biased(self.q, self.k, self.v, self.bias)
        if shared is None or shared.q is not self.q or shared.k is not self.k:
            return attend(self.q, self.k, self.v, self.backend)
        return attend_shared(self.q, self.k, self.v, shared.first, self.backend)

    def of_grid(self, output: Tensor) -> Tensor:
        """What an output holds of the grid's tokens, a view of (rows, heads, tokens, head_dim)."""
        return output if self.joint is None else output.narrow(2, self.joint.q_start, self.q.shape[2])

    def rows(self, rows: slice) -> AttentionCall:
        """The call of some rows of the batch."""
        q, k, v = (x[rows] for x in (self.q, self.k, self.v))
        joint = None if self.joint is None else self.joint.rows(rows)
        own = getattr(self.backend, "rows", None)  # of a function that does not treat all rows alike
        backend = self.backend if own is None else own(rows)
        site = replace(self.site, rows=self.site.rows[rows])
        return replace(self, site=site, q=q, k=k, v=v, backend=backend, joint=joint)


Proceed = Callable[[AttentionCall], Tensor]


class Interceptor:
    """A feature's hook. Observers call `proceed` and look; editors hand on a changed call or compute the output.

    A call holds all samples of each of its branches. An editor may proceed twice, to blend: what an observer behind it
    is shown last is what was put in.

    any_grid: whether it can work on calls that have another grid than the run's (context windows, conditioning areas).
    one_noise: whether all samples must get the same noise in every step, where a sampler adds some.
    driven: samples whose latent comes from outside, by number: (1, channels, frames, height, width), as the host has
        latents (ComfyUI's LATENT, a diffusers transformer's). The host noises it to each model call's level and puts it
        in the place of what the sampler has there.
    """

    any_grid = False
    one_noise = False
    driven: Mapping[int, Tensor] = MappingProxyType({})

    def begin(self, run: Run) -> None:
        """Called once, before the run's first attention call: check everything here and raise what is wrong."""

    def wants(self, site: Site) -> bool:
        """False lets the host skip this interceptor, at no cost, for calls that it would pass on unchanged."""
        return True

    def maps_from(self, site: Site) -> tuple[int, ...] | None:
        """For each row of a call the one whose q and k take the place of its own before anything is done with these;
        None if it may look at all of them. A host that computes q and k for the call may leave out the others."""
        return None

    def __call__(self, call: AttentionCall, proceed: Proceed) -> Tensor:
        return proceed(call)

    def end(self, completed: bool) -> None:
        """Called once after every run that began, however it ended."""


class Chain(Interceptor):
    """Several interceptors as one; the first is the outermost."""

    def __init__(self, interceptors: Sequence[Interceptor]) -> None:
        self.interceptors = tuple(interceptors)
        self.one_noise = any(interceptor.one_noise for interceptor in self.interceptors)
        self.driven = dict(ChainMap(*(dict(interceptor.driven) for interceptor in self.interceptors)))
        self._begun: list[Interceptor] = []

    def begin(self, run: Run) -> None:
        for interceptor in self.interceptors:
            self._begun.append(interceptor)
            try:
                interceptor.begin(run)
            except VDiTError as error:
                error.note_raised_by(interceptor)
                raise

    def wants(self, site: Site) -> bool:
        return any(interceptor.wants(site) for interceptor in self.interceptors)

    def maps_from(self, site: Site) -> tuple[int, ...] | None:
        """The outermost one's: what stands behind it is shown what it hands on."""
        outermost = next((interceptor for interceptor in self.interceptors if interceptor.wants(site)), None)
        return None if outermost is None else outermost.maps_from(site)

    def __call__(self, call: AttentionCall, proceed: Proceed = AttentionCall.dense) -> Tensor:
        for interceptor in reversed([i for i in self.interceptors if i.wants(call.site)]):
            proceed = _bind(interceptor, proceed)
        return proceed(call)

    def end(self, completed: bool) -> None:
        """All of them end, whatever one of them raises; that is raised at last."""
        begun, self._begun = self._begun, []
        _end(begun, completed)


def _end(begun: list[Interceptor], completed: bool) -> None:
    """The last first. An ExitStack would keep what one raises, and all that its frames hold, in a cycle."""
    if begun:
        try:
            begun[-1].end(completed)
        finally:
            _end(begun[:-1], completed)


def _bind(interceptor: Interceptor, proceed: Proceed) -> Proceed:
    """An error keeps who raised it: a host tells it at the node that added this one."""

    def intercepted(call: AttentionCall) -> Tensor:
        try:
            return interceptor(call, proceed)
        except VDiTError as error:
            error.note_raised_by(interceptor)
            raise

    return intercepted

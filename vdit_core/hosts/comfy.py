"""The ComfyUI host: interceptors on the self-attention of a Wan MODEL.

    model = attach(model, interceptor)

Nothing is ever changed on the shared model: `attach` clones the patcher and adds two wrappers to the clone, once.
OUTER_SAMPLE opens a session for each sampling run and closes it however the run ends; APPLY_MODEL puts an attention
override into the options of each model call, outermost, and hands what is not ours to the override that was there.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any
from uuid import UUID

import torch
from comfy.ldm.wan.model import WanModel
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..call import AttentionCall, Chain, Interceptor, ModelSignature, Row, Run, Site, TokenGrid
from .comfy_branches import absent, branch_names, branches_to_come
from .comfy_samplers import evaluations, with_one_noise
from .comfy_sparse import SparseOverrides

_KEY = "vdit_attention"
_OVERRIDE = "optimized_attention_override"


class HostError(RuntimeError):
    """A graph asks for something that cannot be done on this model call."""


@dataclass(frozen=True)
class Outcome:
    """How a sampling run ended.

    samples: what the sampler returned; None after an error or interrupt. run: what the first attention call showed.
    stock: why the run was left to the stock model, or None. caveat: what an interceptor needs and did not get, or None.
    """

    samples: Tensor | None
    run: Run | None
    stock: str | None
    caveat: str | None = None


OnEnd = Callable[[Outcome], None]


def attach(model: Any, interceptor: Interceptor, on_end: OnEnd | None = None) -> Any:
    """A clone of a MODEL whose runs go through one more interceptor; those attached before stay outside of it.

    on_end: called after each sampling run, after the interceptor's own `end`.

    Raises (from the sampler):
        HostError: if the run computes attention on grids that the interceptor cannot work on.
        ValueError: of any kind, from an interceptor that does not fit the run, before its first attention call.
    """
    model = model.clone()
    attached = (*(model.get_attachment(_KEY) or ()), (interceptor, on_end))
    model.set_attachments(_KEY, attached)
    if len(attached) == 1:
        model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, _KEY, _sample)
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, _KEY, _apply)
    return model


def signature(model: Any) -> ModelSignature:
    """The layers and heads of a MODEL.

    Raises:
        HostError: if its tokens are not known, with the models that are.
    """
    network = _network(model)
    if (reason := _unknown(network)) is not None:
        raise HostError(f"{reason}.")
    return _signature(network)


def _signature(network: Any) -> ModelSignature:
    return ModelSignature(len(network.blocks), network.num_heads, network.dim // network.num_heads)


def _kind(network: Any) -> str:
    """What tells networks of one signature apart, in words that all hosts share."""
    return f"wan {network.model_type} {network.in_dim} -> {network.out_dim}"


def _network(model: Any) -> Any:
    network = model.model.diffusion_model
    return getattr(network, "_orig_mod", network)


def _unknown(network: Any) -> str | None:
    """Why a network is none of those whose tokens are known; Wan's other classes lay them out in other ways."""
    if type(network) is WanModel:
        return None
    return (
        f"{type(network).__name__} is not a model whose tokens this pack knows "
        "(Wan2.1 and Wan2.2 T2V, I2V, first-last-frame and 5B are)"
    )


def _sample(
    executor: Any, noise: Tensor, latent: Tensor, sampler: Any, sigmas: Tensor, *args: Any, **kwargs: Any
) -> Any:
    guider = executor.class_obj
    session = _Session(guider, sampler, sigmas, noise)
    if session.stock is None and session.chain.one_noise:
        sampler, session.caveat = with_one_noise(sampler)
    guider.model_options.setdefault("transformer_options", {})[_KEY] = session
    samples = None
    try:
        samples = executor(noise, latent, sampler, sigmas, *args, **kwargs)
    finally:
        guider.model_options["transformer_options"].pop(_KEY, None)
        session.close(samples)
    return samples


def _apply(
    executor: Any,
    x: Tensor,
    t: Tensor,
    c_concat: Any = None,
    c_crossattn: Any = None,
    control: Any = None,
    transformer_options: dict[str, Any] | None = None,
    **conds: Any,
) -> Any:
    options = dict(transformer_options or {})
    session = options.get(_KEY)
    previous = options.get(_OVERRIDE)
    if session is not None and session.stock is None and not isinstance(previous, _Override):
        options[_OVERRIDE] = session.override(x, t, options, conds)
    return executor(x, t, c_concat, c_crossattn, control, options, **conds)


class _Session:
    """One sampling run."""

    def __init__(self, guider: Any, sampler: Any, sigmas: Tensor, noise: Tensor) -> None:
        attached = guider.model_patcher.get_attachment(_KEY) or ()
        self.network = _network(guider.model_patcher)
        self.chain = Chain([interceptor for interceptor, _ in attached])
        self.on_end = [on_end for _, on_end in attached if on_end is not None]
        self.guider, self.sampler = guider, sampler
        self.sigmas = tuple(dict.fromkeys(sigmas[:-1].tolist()))  # where each step begins
        self.samples = len(noise)
        self.one_noise = not self.chain.one_noise or bool((noise == noise[:1]).all())
        self.run: Run | None = None
        self.visits: Counter[tuple[str, float]] = Counter()
        self.names: dict[UUID, list[str]] = {}
        self.strict: list[str] | None = None  # who acts in this run and knows one grid only
        self.lock = threading.Lock()  # ComfyUI calls the model from one thread per GPU
        self.stock: str | None = None
        self.caveat: str | None = None
        if (reason := _unknown(self.network)) is not None:
            self.leave_to_stock(reason)

    def leave_to_stock(self, reason: str) -> None:
        if self.stock is None:
            logging.warning("VDiT Attention: this run is computed by the stock model: %s.", reason)
        self.stock = self.stock or reason

    def override(self, x: Tensor, t: Tensor, options: dict[str, Any], conds: dict[str, Any]) -> _Override:
        """The attention override of one model call; x holds one chunk of the batch per entry of options["uuids"]."""
        if not self.names:
            self.names = branch_names(self.guider.conds)
        sigma = float(t.max())
        uuids = options["uuids"]
        # A conditioning that another node made up on the way has no name of its own.
        branches = [self.names.get(uuid, ["other"] * len(uuids))[uuids[:i].count(uuid)] for i, uuid in enumerate(uuids)]
        samples = len(x) // len(branches)
        with self.lock:
            visit = self.visits[branches[0], sigma]
            for branch in branches:
                self.visits[branch, sigma] += 1
        rows = tuple(Row(branch, i) for branch in branches for i in range(samples))
        return _Override(self, sigma, visit, rows, _reference_tokens(self.network, conds), options.get(_OVERRIDE))

    def site(self, layer: int, grid: TokenGrid, dtype: torch.dtype, call: _Override) -> Site:
        """The first call of a run begins it.

        Raises:
            HostError: if the grid changes within the run and an interceptor cannot follow.
        """
        with self.lock:
            if self.run is None:
                run = self.describe(grid, dtype)
                self.chain.begin(run)
                self.run = run
        run = self.run
        if grid != run.grid:
            if self.strict is None:
                self.strict = [type(i).__name__ for i in self.chain.interceptors if not i.any_grid and _acts(i, run)]
            if self.strict:
                raise HostError(_two_grids(run.grid, grid, self.strict))
            run = replace(run, grid=grid)
        return Site(run, layer, run.step_of(call.sigma), call.sigma, call.visit, call.rows)

    def describe(self, grid: TokenGrid, dtype: torch.dtype) -> Run:
        return Run(
            _signature(self.network),
            grid,
            self.sigmas,
            branches_to_come(self.guider),
            self.samples,
            dtype,
            _kind(self.network),
            absent(self.guider, self.sigmas),
            evaluations(self.sampler),
            self.one_noise,
        )

    def close(self, samples: Tensor | None) -> None:
        try:
            self.chain.end(completed=samples is not None and self.run is not None and self.stock is None)
        except BaseException:
            samples = None
            raise
        finally:
            outcome = Outcome(samples, self.run, self.stock, self.caveat)
            for on_end in self.on_end:
                on_end(outcome)


def _acts(interceptor: Interceptor, run: Run) -> bool:
    """Whether an interceptor wants any call of a run."""
    rows = tuple(Row(branch, sample) for branch in run.branches for sample in range(run.samples))
    places = product(range(run.model.layers), enumerate(run.sigmas))
    return any(interceptor.wants(Site(run, layer, step, sigma, 0, rows)) for layer, (step, sigma) in places)


def _two_grids(first: TokenGrid, grid: TokenGrid, strict: list[str]) -> str:
    """Why a run cannot go on with a second grid, and what to do."""
    if (first.frames, first.height, first.width) == (grid.frames, grid.height, grid.width):
        cause = "as a reference picture on some of the prompts does"
        remedy = "Give every prompt the same reference, the negative one too"
    else:
        cause = "as context windows and conditioning areas do"
        remedy = "Use live transfer, switch off the causal window fix, or remove the windows or areas"
    return (
        f"This run computes attention on a grid of {grid} after one of {first}, {cause}; recorded maps fit one grid "
        f"only ({', '.join(strict)}). {remedy}."
    )


def _reference_tokens(network: Any, conds: dict[str, Any]) -> int:
    """How many tokens of a reference picture a model call puts before the grid's."""
    reference = conds.get("reference_latent")
    if reference is None or getattr(network, "ref_conv", None) is None:
        return 0
    return math.prod(n // p for n, p in zip(reference.shape[-2:], network.patch_size[1:], strict=True))


class _Override:
    """The attention function of one model call: self-attention goes through the chain, all else where it would go."""

    def __init__(
        self, session: _Session, sigma: float, visit: int, rows: tuple[Row, ...], prefix: int, previous: Any
    ) -> None:
        self.session, self.sigma, self.visit, self.rows, self.prefix = session, sigma, visit, rows, prefix
        self.previous, self.sparse = previous, SparseOverrides(previous)
        self.layer = -1

    @torch.compiler.disable()
    def __call__(self, func: Any, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        stock = func if self.previous is None else partial(self.previous, func)
        session, grid = self.session, self._self_attention(q, k, kwargs)
        if grid is None:
            return stock(q, k, v, *args, **kwargs)
        site = session.site(self.layer, grid, q.dtype, self)
        if not session.chain.wants(site):
            return stock(q, k, v, *args, **kwargs)
        heads = kwargs["heads"]

        def backend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return _split(stock(_join(q), _join(k), _join(v), *args, **kwargs), heads)

        elsewhere = self.sparse.name_if_sparse(kwargs["transformer_options"], grid.tokens, self.layer)
        q, k, v = (_split(x, heads) for x in (q, k, v))
        return _join(session.chain(AttentionCall(site, q, k, v, backend, sparse_elsewhere=elsewhere)))

    def _self_attention(self, q: Tensor, k: Tensor, kwargs: dict[str, Any]) -> TokenGrid | None:
        """The grid, if this call is a block's self-attention; it is the block's first call, before cross-attention,
        which may have a text as long as the grid."""
        options = kwargs.get("transformer_options") or {}
        layer = options.get("block_index")
        if layer is None or layer == self.layer:
            return None
        self.layer = layer
        frames, height, width = options["grid_sizes"]
        suffix = q.shape[1] - frames * height * width - self.prefix
        if q.shape != k.shape or suffix < 0 or len(q) != len(self.rows):
            self.session.leave_to_stock(
                f"self-attention of layer {layer} has {len(q)} rows of {q.shape[1]} tokens; expected {len(self.rows)} "
                f"rows of {frames} x {height} x {width} tokens and {self.prefix} of a reference"
            )
            return None
        return TokenGrid(frames, height, width, self.prefix, suffix)


def _split(x: Tensor, heads: int) -> Tensor:
    """(rows, tokens, heads * head_dim) to (rows, heads, tokens, head_dim); a view."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _join(x: Tensor) -> Tensor:
    """The way back; a view of what `_split` made."""
    return x.transpose(1, 2).flatten(2)

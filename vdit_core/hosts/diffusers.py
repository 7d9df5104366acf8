"""The diffusers host: interceptors on the self-attention of a `WanPipeline`.

    with attach(pipe, recorder):
        pipe(...)

One `with` block is one sampling run. When it ends, in whatever way, the pipeline is as it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks.hooks import StateManager
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from torch import Tensor, nn

from ..call import AttentionCall, Chain, Interceptor, ModelSignature, Row, Run, Site, TokenGrid
from ..provenance import Provenance, fingerprint

_HOOK = "vdit_attention"
#: Schedulers by the names that ComfyUI has for the same samplers.
_SAMPLERS = {"FlowMatchEulerDiscreteScheduler": "euler", "FlowMatchHeunDiscreteScheduler": "heun"}


@contextmanager
def attach(pipe: DiffusionPipeline, *interceptors: Interceptor) -> Iterator[None]:
    """Send the self-attention calls of one call of a Wan pipeline through interceptors; the first is the outermost.

    Raises:
        RuntimeError: if the pipeline is attached already, or its self-attention is not stock Wan's.

    Raises (from the pipeline's call):
        RuntimeError: if a second run starts in the same block, or if the transformer is called without
            `cache_context`, which says what branch it computes.
        ValueError: of any kind, from an interceptor that does not fit the run, before its first attention call.
    """
    models = [m for m in (pipe.transformer, getattr(pipe, "transformer_2", None)) if m is not None]
    session = _Session(pipe, Chain(interceptors))
    attentions = [(i, block.attn1) for model in models for i, block in enumerate(model.blocks)]
    stock = [attention.processor for _, attention in attentions]
    for processor in stock:
        if type(processor) is not WanAttnProcessor:
            raise RuntimeError(
                f"This pipeline's self-attention runs through {type(processor).__name__}, not stock Wan's processor. "
                "Give one attach() all interceptors; remove other packages' processors first."
            )
    hooks = [_Watch(session) for _ in models]
    completed = False
    try:
        for model, hook in zip(models, hooks, strict=True):
            HookRegistry.check_if_exists_or_initialize(model).register_hook(hook, _HOOK)
        for i, attention in attentions:
            attention.set_processor(_Tap(i, session, attention.processor))
        yield
        completed = session.reached_the_end()
    finally:
        for (_, attention), processor in zip(attentions, stock, strict=True):
            attention.set_processor(processor)
        for model in models:
            HookRegistry.check_if_exists_or_initialize(model).remove_hook(_HOOK, recurse=False)
        for hook in hooks:
            hook.session = None  # diffusers leaves a hook in a cycle; what was recorded shall not stay with it
        session.chain.end(completed)


class _Session:
    """What one run's hooks share."""

    def __init__(self, pipe: DiffusionPipeline, chain: Chain) -> None:
        self.pipe, self.chain = pipe, chain
        self.run: Run | None = None
        self.visits: Counter[tuple[str, float]] = Counter()

    def model_call(self, model: Any, branch: str, latents: Tensor, timestep: Tensor) -> None:
        """A forward pass of the transformer begins; the first one begins the run."""
        timesteps = self.pipe.scheduler.timesteps
        if self.run is None:
            self.timesteps = timesteps
            self.levels = self.pipe.scheduler.sigmas[: len(timesteps)].tolist()
            run = self._describe(model, latents)
            self.chain.begin(run)
            self.run = run
        elif timesteps is not self.timesteps:
            raise RuntimeError("A second sampling run began inside one attach() block: open a block for each run.")
        nearest = (timesteps.float() - float(timestep.max())).abs().argmin()
        sigma = self.levels[int(nearest)]
        self.here = {
            "step": self.run.step_of(sigma),
            "sigma": sigma,
            "visit": self.visits[branch, sigma],
            "rows": tuple(Row(branch, i) for i in range(len(latents))),
        }
        self.visits[branch, sigma] += 1

    def _describe(self, model: Any, latents: Tensor) -> Run:
        config = model.config
        grid = TokenGrid(*(n // p for n, p in zip(latents.shape[2:], config.patch_size, strict=True)))
        noise = latents[:, : config.out_channels]  # beside it a picture's latents, in image-to-video
        return Run(
            ModelSignature(len(model.blocks), config.num_attention_heads, config.attention_head_dim),
            grid,
            tuple(dict.fromkeys(self.levels)),
            ("cond", "uncond") if self.pipe.do_classifier_free_guidance else ("cond",),
            len(latents),
            latents.dtype,
            f"wan {'i2v' if config.image_dim else 't2v'} {config.in_channels} -> {config.out_channels}",
            evaluations=max(Counter(self.levels).values()),
            one_noise=not self.chain.one_noise or bool((noise == noise[:1]).all()),
            made=self._provenance(noise, latents.shape[-3:]),
        )

    def _provenance(self, noise: Tensor, size: torch.Size) -> Provenance:
        pipe, config = self.pipe, self.pipe.scheduler.config
        frames, height, width = size
        of_video: dict[str, Any] = {}
        if hasattr(pipe, "vae_scale_factor_spatial"):
            spatial, temporal = pipe.vae_scale_factor_spatial, pipe.vae_scale_factor_temporal
            of_video = {"width": width * spatial, "height": height * spatial, "frames": (frames - 1) * temporal + 1}
        return Provenance(
            **of_video,
            shift=config.get("flow_shift", config.get("shift")),
            sampler=_SAMPLERS.get(type(pipe.scheduler).__name__),
            cfg=float(pipe.guidance_scale) if pipe.do_classifier_free_guidance else 1.0,
            noise=fingerprint(noise) if self.levels[0] > 0.999 else (),
        )

    def reached_the_end(self) -> bool:
        """Whether the last step was computed; a pipeline that is told to interrupt skips the rest without an error."""
        return self.run is not None and self.here["step"] == self.run.steps - 1

    def site(self, layer: int) -> Site:
        assert self.run is not None
        return Site(run=self.run, layer=layer, **self.here)


class _Watch(ModelHook):
    """Sees each forward pass of a transformer; the pipeline's `cache_context` tells it the branch."""

    _is_stateful = True

    def __init__(self, session: _Session) -> None:
        super().__init__()
        self.session: _Session | None = session
        self.context = StateManager(dict)

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        context = getattr(self.context, "_context", None) or getattr(self.context, "_current_context", None)
        if context is None:
            raise RuntimeError('Call the transformer inside `transformer.cache_context("cond")` (or "uncond").')
        named = dict(zip(("hidden_states", "timestep"), args, strict=False)) | kwargs
        branch = context if isinstance(context, str) else context.name
        assert self.session is not None
        self.session.model_call(module, branch, named["hidden_states"], named["timestep"])
        return args, kwargs

    def reset_state(self, module: nn.Module) -> nn.Module:
        self.context.reset()
        return module


class _Tap:
    """A self-attention processor that computes q, k and v as Wan does and leaves the rest to the chain."""

    def __init__(self, layer: int, session: _Session, stock: Any) -> None:
        self.layer, self.session, self.stock = layer, session, stock

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        site = self.session.site(self.layer)
        if not self.session.chain.wants(site):
            return self.stock(attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb)
        q, k, v = self_attention_inputs(attn, hidden_states, rotary_emb, self.session.chain.maps_from(site))

        def backend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            chosen = getattr(self.stock, "_attention_backend", None)
            return dispatch_attention_fn(*(x.transpose(1, 2) for x in (q, k, v)), backend=chosen).transpose(1, 2)

        output = self.session.chain(AttentionCall(site, q, k, v, backend))
        output = output.transpose(1, 2).flatten(2, 3).type_as(q)
        return attn.to_out[1](attn.to_out[0](output))


def self_attention_inputs(
    attn: Any,
    hidden_states: Tensor,
    rotary: tuple[Tensor, Tensor] | None,
    maps_from: tuple[int, ...] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v of a diffusers `WanAttention`, after norms and RoPE: (rows, heads, tokens, head_dim) each.

    maps_from: for each row the one whose q and k it gets; those of others are not computed. None: its own.
    """
    own = sorted(set(maps_from or range(len(hidden_states))))
    if attn.fused_projections:
        q, k, v = attn.to_qkv(hidden_states).chunk(3, dim=-1)
        q, k = (x if len(own) == len(x) else x[own] for x in (q, k))
    else:
        of_maps = hidden_states if len(own) == len(hidden_states) else hidden_states[own]
        q, k, v = attn.to_q(of_maps), attn.to_k(of_maps), attn.to_v(hidden_states)
    q, k, v = (x.unflatten(2, (attn.heads, -1)) for x in (attn.norm_q(q), attn.norm_k(k), v))
    if rotary is not None:
        q, k = rotate(q, *rotary), rotate(k, *rotary)
    if len(own) < len(v):
        assert maps_from is not None
        q, k = (_given(x, [own.index(row) for row in maps_from]) for x in (q, k))
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def _given(x: Tensor, rows: list[int]) -> Tensor:
    """These rows of x; no copy if it has but one."""
    return x.expand(len(rows), -1, -1, -1) if len(x) == 1 else x[rows]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding on neighbouring pairs; x: (rows, tokens, heads, head_dim)."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[..., 0::2], sin[..., 1::2]
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).type_as(x)

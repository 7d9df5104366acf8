"""Wan in diffusers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from torch import Tensor

from ....call import AttentionCall, TokenGrid
from .family import Family, patches

if TYPE_CHECKING:
    from ..session import Session


class Wan(Family):
    """Wan2.1 and Wan2.2: self-attention of its own.

    Queries and keys of rows whose map a transfer replaces are not computed: so Wan's processor is written again here.
    """

    transformers = ("WanTransformer3DModel",)
    blocks = (("", "blocks"),)
    prompts_together = False

    def kind_of(self, config: Any) -> str:
        return f"wan {'i2v' if config.image_dim else 't2v'} {config.in_channels} -> {config.out_channels}"

    def grid_of(self, model: Any, inputs: Mapping[str, Any]) -> TokenGrid:
        return patches(self.size_of(inputs), model.config.patch_size)

    def noise_of(self, model: Any, inputs: Mapping[str, Any]) -> Tensor:
        noise: Tensor = inputs["hidden_states"][:, : model.config.out_channels]
        return noise  # beside it a picture's latents, in image-to-video

    def intercept(self, layer: int, attention: Any, session: Session) -> Callable[[], None]:
        stock = attention.processor
        if type(stock) is not WanAttnProcessor:
            raise RuntimeError(
                f"This pipeline's self-attention runs through {type(stock).__name__}, not stock Wan's processor. "
                "Give one attach() all interceptors; remove other packages' processors first."
            )
        attention.set_processor(_Processor(layer, session, stock))
        return partial(attention.set_processor, stock)


class _Processor:
    """Computes q, k and v as Wan does, but only those that are used, and leaves the rest to the chain."""

    def __init__(self, layer: int, session: Session, stock: Any) -> None:
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

        output = self.session.chain(AttentionCall(site, q, k, v, backend)).transpose(1, 2).flatten(2, 3)
        return attn.to_out[1](attn.to_out[0](output.type_as(q)))


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

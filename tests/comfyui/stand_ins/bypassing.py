"""Models whose attention, or whole forward, is another pack's and does not come to ComfyUI's attention function."""

from __future__ import annotations

import types
from unittest.mock import patch

import torch.nn.functional as F
from comfy.ldm.flux.math import apply_rope


def attend(q, k, v):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def own_self_attention(self, x, freqs, transformer_options=None):
    heads = (*x.shape[:2], self.num_heads, self.head_dim)
    q, k = self.norm_q(self.q(x)).view(heads), self.norm_k(self.k(x)).view(heads)
    return self.o(attend(*apply_rope(q, k, freqs), self.v(x).view(heads)))


def own_cross_attention(self, x, context, transformer_options=None, **kwargs):
    q, k, v = self.norm_q(self.q(x)), self.norm_k(self.k(context)), self.v(context)
    return self.o(attend(*(t.unflatten(2, (self.num_heads, -1)) for t in (q, k, v))))


def own_forward(self, x, t, context, clip_fea=None, freqs=None, transformer_options=None, **kwargs):
    """A copy of the model's forward from before it handed options to its blocks; here, the forward without them."""
    return type(self).forward_orig(self, x, t, context, clip_fea, freqs, {}, **kwargs)


class Patch:
    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "patch", "tests"


class AttentionBypass(Patch):
    """As a memory-efficient attention patch does: the blocks' forwards are object patches."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "what": (["self", "cross", "both"],)}}

    def patch(self, model, what):
        model = model.clone()
        for i, block in enumerate(model.get_model_object("diffusion_model").blocks):
            for kind, own in (("self", own_self_attention), ("cross", own_cross_attention)):
                if what in (kind, "both"):
                    name = f"{kind}_attn"
                    forward = types.MethodType(own, getattr(block, name))
                    model.add_object_patch(f"diffusion_model.blocks.{i}.{name}.forward", forward)
        return (model,)


class ForwardReplacement(Patch):
    """The model's own forward is replaced by an object patch."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def patch(self, model):
        model = model.clone()
        network = model.get_model_object("diffusion_model")
        model.add_object_patch("diffusion_model.forward_orig", types.MethodType(own_forward, network))
        return (model,)


class TemporaryForward(Patch):
    """As caching nodes do: the model's forward is replaced while it is called, by a function around that call."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def patch(self, model):
        model = model.clone()
        network = model.get_model_object("diffusion_model")

        def teacache_forward(self, *args, **kwargs):
            return own_forward(self, *args, **kwargs)

        def call(apply_model, inputs):
            with patch.object(network, "forward_orig", types.MethodType(teacache_forward, network)):
                return apply_model(inputs["input"], inputs["timestep"], **inputs["c"])

        model.set_model_unet_function_wrapper(call)
        return (model,)

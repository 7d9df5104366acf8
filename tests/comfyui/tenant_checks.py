"""Other packs' nodes on the same model, set before ours and after: each gets its due. Started by test_host.py."""

from __future__ import annotations

from typing import Any

import inside
import variants
from aftermath import nothing_stays
from inside import SHORT, cases, host, raised_by, sample
from variants import MODEL, with_lora

# isort: split
import comfy.ldm.modules.attention as attention
import torch
import torch.nn.functional as F
from comfy.patcher_extension import WrappersMP
from pack.vdit_core.recording.recorder import Recorder
from pack.vdit_core.selection import Indices
from pack.vdit_core.transfer import Transfer, TransferConfig


def override(function):
    """Another pack's attention function in the one slot for it; as some do, without a look at what is there."""

    def put(model):
        model.model_options["transformer_options"]["optimized_attention_override"] = function
        return model

    return put


def wrapper(kind: str, function):
    def put(model):
        model.add_wrapper_with_key(getattr(WrappersMP, kind), "other", function)
        return model

    return put


def patch(name: str, function):
    """A patch of one of ComfyUI's own kinds."""

    def put(model):
        getattr(model, name)(function)
        return model

    return put


def node(module: str, name: str, *settings: Any):
    return lambda model: variants.node(module, name, *settings, model=model)


def hands_on(executor, *args, **kwargs):
    return executor(*args, **kwargs)


def twice(executor, *args, **kwargs):
    """A node that looks at the model twice, as some guidance does."""
    return (executor(*args, **kwargs) + executor(*args, **kwargs)) / 2


def its_own(func, q, k, v, heads, **kwargs):
    """Computes by itself, whatever was asked for."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def in_place(func, q, k, v, **kwargs):
    """Sharper maps, by changing what it was lent."""
    q.mul_(1.5)
    k.add_(0.1)
    return func(q, k, v, **kwargs)


def in_double(func, q, k, v, **kwargs):
    return func(q.double(), k.double(), v.double(), **kwargs).to(q.dtype)


def in_half(func, q, k, v, **kwargs):
    return func(q, k, v, **kwargs).half()


def not_contiguous(func, q, k, v, **kwargs):
    return func(q, k, v, **kwargs).mT.contiguous().mT


def only_cross(func, q, k, v, **kwargs):
    return func(q, k, v, **kwargs) * (1 if q.shape == k.shape else 0.5)


def one_row_at_a_time(func, q, k, v, **kwargs):
    return torch.cat([func(*row, **kwargs) for row in zip(q.split(1), k.split(1), v.split(1), strict=True)])


def compiled(model):
    import comfy_api.torch_helpers as helpers

    helpers.set_torch_compile_wrapper(model=model, backend="eager")
    return model


def multiplied(options):
    return options["x"] * 1.1


#: What somebody else does to a model.
TENANTS = {
    "attention that hands on": override(lambda func, *args, **kwargs: func(*args, **kwargs)),
    "attention of its own": override(its_own),
    "attention that changes q and k in place": override(in_place),
    "attention in float64": override(in_double),
    "attention that returns a strided view": override(not_contiguous),
    "attention for texts only": override(only_cross),
    "attention row by row": override(one_row_at_a_time),
    "ComfyUI's sub-quadratic attention": patch("set_model_optimized_attention", attention.attention_sub_quad),
    "ComfyUI's split attention": patch("set_model_optimized_attention", attention.attention_split),
    "an APPLY_MODEL wrapper": wrapper("APPLY_MODEL", hands_on),
    "an APPLY_MODEL wrapper that calls twice": wrapper("APPLY_MODEL", twice),
    "a DIFFUSION_MODEL wrapper": wrapper("DIFFUSION_MODEL", hands_on),
    "a DIFFUSION_MODEL wrapper that calls twice": wrapper("DIFFUSION_MODEL", twice),
    "a PREDICT_NOISE wrapper that calls twice": wrapper("PREDICT_NOISE", twice),
    "a CALC_COND_BATCH wrapper": wrapper("CALC_COND_BATCH", hands_on),
    "a SAMPLER_SAMPLE wrapper": wrapper("SAMPLER_SAMPLE", hands_on),
    "an OUTER_SAMPLE wrapper that samples twice": wrapper("OUTER_SAMPLE", twice),
    "an old function wrapper": patch(
        "set_model_unet_function_wrapper", lambda apply, a: apply(a["input"], a["timestep"], **a["c"])
    ),
    "a patch behind self-attention": patch("set_model_attn1_patch", multiplied),
    "a patch behind cross-attention": patch("set_model_attn2_patch", multiplied),
    "a block of its own": lambda model: (
        model.set_model_patch_replace(lambda a, more: more["original_block"](a), "dit", "double_block", 2) or model
    ),
    "EasyCache": node("nodes_easycache", "EasyCacheNode", 5.0, 0.15, 0.95, False),
    "LazyCache": node("nodes_easycache", "LazyCacheNode", 5.0, 0.15, 0.95, False),
    "ModelSamplingSD3": node("nodes_model_advanced", "ModelSamplingSD3", 5.0),
    "NAG": node("nodes_nag", "NAGuidance", 5.0, 0.5, 1.5),
    "a LoRA": with_lora,
    "a compiled model": compiled,
}  # fmt: skip

#: How a tenant and a node of ours come onto the demo model.
ORDERS = {
    "before ours": lambda tenant, attach: attach(tenant(MODEL.clone())),
    "after ours": lambda tenant, attach: tenant(attach(MODEL)),
}


#: Attention functions that do not work, and what they do.
WRONG = {
    "another dtype": (in_half, "must have the same dtype"),
    "no heads": (lambda func, q, k, v, **kwargs: func(q, k, v, **kwargs)[..., :128], "shapes cannot be multiplied"),
    "an error": (lambda func, *args, **kwargs: func(*args, **kwargs, nonsense=1 / 0), "division by zero"),
}


@cases(WRONG, ORDERS)
def check_a_tenant_that_is_wrong(function, message, order):
    """The error is its own, as without us; the node works when the tenant has gone."""
    recorder = Recorder()
    attached = order(override(function), lambda model: host.attach(model, recorder))
    for model in (override(function)(MODEL.clone()), attached):
        assert message in str(raised_by(sample, model, **SHORT))
    attached.model_options["transformer_options"].pop("optimized_attention_override")
    assert torch.equal(sample(attached, **SHORT), sample(MODEL, **SHORT))
    assert len(recorder.store) == 16


@cases(TENANTS, ORDERS)
def check_a_tenant_is_left_what_it_does(tenant, order):
    """Recording changes no bit of what it gives, and what was recorded of it is put in again."""
    steps = {"steps": 6} if tenant in (TENANTS["EasyCache"], TENANTS["LazyCache"]) else {}
    alone = sample(tenant(MODEL.clone()), **SHORT | steps)
    recorder = Recorder()
    assert torch.equal(sample(order(tenant, lambda model: host.attach(model, recorder)), **SHORT | steps), alone)
    computed = sorted({recorder.store.header.sigmas.index(e.sigma) for e in recorder.store.evaluations})
    transfer = Transfer(recorder.store, TransferConfig(steps=Indices(",".join(map(str, computed)))))
    again = sample(order(tenant, lambda model: host.attach(model, transfer)), **SHORT | steps)
    torch.testing.assert_close(again, alone, rtol=0, atol=1e-4 * float(alone.abs().max()))
    assert transfer.report.replaced == transfer.report.expected == 8 * len(computed), transfer.report
    assert transfer.report.missed == 0


inside.report(globals(), nothing_stays)

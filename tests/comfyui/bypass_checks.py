"""The ways in which others keep self-attention from ComfyUI's attention function: named, told from what only looks so.
Started by test_host.py."""

from __future__ import annotations

import types
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import inside
import torch.nn.functional as F
from aftermath import nothing_stays
from inside import SHORT, cases, host, raised_by, sample, shallow

# isort: split
from comfy.ldm.flux.math import apply_rope
from comfy.ldm.wan import model as wan
from pack.vdit_core.outcome import Level
from pack.vdit_core.recording.recorder import Recorder
from pack.vdit_core.selection import LayerMask
from pack.vdit_core.transfer import Transfer, TransferConfig

MODEL = shallow()
NETWORK = MODEL.model.diffusion_model
UNTOUCHED = shallow()  # ComfyUI leaves methods on the modules of a model that had object patches


def attend(q, k, v):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def own_attention(self, x, freqs, transformer_options=None):
    heads = (*x.shape[:2], self.num_heads, self.head_dim)
    q, k = self.norm_q(self.q(x)).view(heads), self.norm_k(self.k(x)).view(heads)
    return self.o(attend(*apply_rope(q, k, freqs), self.v(x).view(heads)))


def own_block(self, x, e, freqs, context, context_img_len=257, transformer_options=None):
    return type(self).forward(self, x, e, freqs, context, context_img_len, {})


def own_function(q, k, v, heads, **kwargs):
    return attend(*(x.unflatten(2, (heads, -1)) for x in (q, k, v)))


def own_wrapper(executor, x, t, context, clip_fea=None, time_dim_concat=None, transformer_options=None, **kwargs):
    return executor(x, t, context, clip_fea, time_dim_concat, {}, **kwargs)


def own_replacement(args, extra):
    return extra["original_block"](args | {"transformer_options": {}})


# An object is of its class's module, and these are none of ComfyUI's: as if a pack were loaded.
for each in (own_attention, own_block, own_function, own_wrapper, own_replacement):
    each.__module__ = "/x/custom_nodes/Some-Pack.nodes.fast"


def patched(name: str, function, blocks: range = range(4)):
    model = MODEL.clone()
    for i in blocks:
        module = NETWORK.blocks[i] if name == "forward" else getattr(NETWORK.blocks[i], name.partition(".")[0])
        model.add_object_patch(f"diffusion_model.blocks.{i}.{name}", types.MethodType(function, module))
    return model


def wrapped():
    model = MODEL.clone()
    model.add_wrapper_with_key("diffusion_model", "other", own_wrapper)
    return model


def replaced():
    model = MODEL.clone()
    for i in range(4):
        model.set_model_patch_replace(own_replacement, "dit", "double_block", i)
    return model


def bound(blocks):
    """Set on the modules themselves, by whoever does not clean up."""

    @contextmanager
    def put():
        for block in blocks:
            block.self_attn.forward = types.MethodType(own_attention, block.self_attn)
        try:
            yield
        finally:
            for block in blocks:
                del block.self_attn.forward

    return put


#: How it is done, and what is around the run; which part the message names.
WAYS: dict[str, Any] = {
    "object patches of self-attention": (
        lambda: patched("self_attn.forward", own_attention), nullcontext, "the blocks' self_attn.forward",
    ),
    "object patches of blocks": (lambda: patched("forward", own_block), nullcontext, "the blocks' forward"),
    "methods of the class": (
        UNTOUCHED.clone, lambda: patch.object(wan.WanSelfAttention, "forward", own_attention), "self_attn forward",
    ),
    "methods bound to the modules": (MODEL.clone, bound(NETWORK.blocks), "self_attn forward"),
    "the function of the model's module": (
        MODEL.clone, lambda: patch.object(wan, "optimized_attention", own_function), "optimized_attention",
    ),
    "a wrapper around the model": (wrapped, nullcontext, "the call of the model"),
    "replaced blocks": (replaced, nullcontext, "the blocks"),
}  # fmt: skip


@cases(WAYS)
def check_who_did_it_is_named(make, around, part):
    """An editor goes on and is told after the first call; what is needed ends there."""
    recorder = Recorder()
    sample(host.attach(MODEL, recorder), **SHORT)
    store = recorder.take()
    with around():
        stock = sample(make(), **SHORT)
        outcomes, told, transfer = [], [], Transfer(store)
        again = sample(host.attach(make(), transfer, outcomes.append, told.append), **SHORT)
        assert inside.torch.equal(again, stock)
        verdict = outcomes[0].verdict(lambda: transfer.report.verdict())
        assert verdict.level is Level.FAILED, verdict
        assert len(told) == 1, "once, after the first call"
        for text in (verdict.text, told[0]):
            assert "Some-Pack replaced" in text, text
            assert part in text, text
        error = raised_by(sample, host.attach(make(), Recorder(), required=True), **SHORT)
        assert isinstance(error, host.NotReached), error
        assert "Some-Pack" in str(error), error


def check_a_part_of_the_blocks_is_told_apart():
    recorder = Recorder()
    sample(host.attach(MODEL, recorder), **SHORT)
    outcomes, transfer = [], Transfer(recorder.take())
    model = patched("self_attn.forward", own_attention, range(1, 3))
    sample(host.attach(model, transfer, outcomes.append), **SHORT)
    verdict = outcomes[0].verdict(lambda: transfer.report.verdict())
    assert verdict.level is Level.PARTLY, verdict
    assert verdict.text.startswith("replaced 8 of 16 calls; layers 1-2 did not come"), verdict
    assert "in layers 1-2 Some-Pack replaced the blocks' self_attn.forward" in verdict.text, verdict
    recorder, outcomes = Recorder(), []
    sample(host.attach(model, recorder, outcomes.append, required=True), **SHORT)
    verdict = outcomes[0].verdict(recorder.verdict)
    assert verdict.level is Level.PARTLY, verdict
    assert "layers 1-2 did not come" in verdict.text, verdict


def check_what_begins_later_is_told():
    """As caching nodes do that leave the first steps alone."""
    model = MODEL.clone()

    def late(apply_model, inputs):
        first = float(inputs["timestep"].max()) > 0.99
        with nullcontext() if first else bound(NETWORK.blocks)():
            return apply_model(inputs["input"], inputs["timestep"], **inputs["c"])

    model.set_model_unet_function_wrapper(late)
    recorder, outcomes = Recorder(), []
    sample(host.attach(model, recorder, outcomes.append), **SHORT)
    verdict = outcomes[0].verdict(recorder.verdict)
    assert verdict.level is Level.PARTLY, verdict
    assert "step 1 did not come" in verdict.text, verdict
    assert "Some-Pack replaced" in verdict.text, verdict


def check_what_is_not_wanted_is_not_missed():
    """Other layers than those that a transfer is for."""
    recorder = Recorder()
    sample(host.attach(MODEL, recorder), **SHORT)
    outcomes, transfer = [], Transfer(recorder.take(), TransferConfig(LayerMask("0")))
    sample(host.attach(patched("self_attn.forward", own_attention, range(1, 4)), transfer, outcomes.append), **SHORT)
    verdict = outcomes[0].verdict(lambda: transfer.report.verdict())
    assert verdict.level is Level.DONE, verdict


def check_a_patch_that_still_calls_attention_is_no_culprit():
    def scaled(self, x, freqs, transformer_options=None):
        return 0.9 * type(self).forward(self, x, freqs, transformer_options=transformer_options)

    scaled.__module__ = own_attention.__module__
    recorder, outcomes = Recorder(), []
    model = patched("self_attn.forward", scaled)
    samples = sample(host.attach(model, recorder, outcomes.append), **SHORT)
    assert outcomes[0].verdict(recorder.verdict).level is Level.DONE
    assert inside.torch.equal(samples, sample(model, **SHORT))


inside.report(globals(), nothing_stays)

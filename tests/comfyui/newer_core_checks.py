"""What newer cores do around attention: tensors in containers, and a function that a block prefers.

Where this ComfyUI does not, the model's attention function is wrapped so that it does. Started by test_host.py.
"""

from __future__ import annotations

from contextlib import contextmanager
from unittest.mock import patch

import inside
from aftermath import nothing_stays
from inside import SHORT, TARGET, Watch, cases, host, sample, shallow

# isort: split
import comfy.ldm.modules.attention as attention
import torch
from comfy.ldm.wan import model as wan
from pack.vdit_core.recording.recorder import Recorder
from pack.vdit_core.selection import Indices, LayerMask, Selection
from pack.vdit_core.sparse.config import SparseConfig
from pack.vdit_core.sparse.sparse_attention import SparseAttention
from pack.vdit_core.transfer import Transfer, TransferConfig

MODEL = shallow()
BLOCKS = MODEL.model.diffusion_model.blocks


class Preferred(torch.nn.Module):
    """A block's own attention: softer maps than the backend's."""

    def __init__(self) -> None:
        super().__init__()
        self.config, self.calls = None, 0

    def function(self, q, k, v, **kwargs):
        self.calls += 1
        q, k, v = (x.take() if hasattr(x, "take") and not torch.is_tensor(x) else x for x in (q, k, v))
        return attention.attention_pytorch(q * 0.5, k, v, **kwargs)


def handed_over(stock):
    """ComfyUI's attention function as newer cores call it."""

    def optimized_attention(q, k, v, **kwargs):
        if "_inside_attn_wrapper" in kwargs:
            return stock(q, k, v, **kwargs)
        options = kwargs.get("transformer_options") or {}
        block = BLOCKS[options["block_index"]]
        module = block.self_attn if q.shape == k.shape else block.cross_attn
        preferred = getattr(module, "comfy_attention", None)
        containers = [attention.AttentionTensorContainer(x) for x in (q, k, v)]
        if preferred is None or "optimized_attention_override" in options:
            return stock(*containers, **kwargs)
        return preferred.function(*containers, **kwargs)

    return optimized_attention


@contextmanager
def newer():
    """The core as it is, if it is new; else made so."""
    if hasattr(attention, "ComfyAttention"):
        yield
    elif hasattr(attention, "AttentionTensorContainer"):
        with patch.object(wan, "optimized_attention", handed_over(wan.optimized_attention)):
            yield
    else:
        raise inside.Absent("no containers")


@contextmanager
def preferring(*kinds: str):
    """Blocks whose self-attention, cross-attention or both prefer a function of their own."""
    modules = [getattr(block, f"{kind}_attn") for block in BLOCKS for kind in kinds]
    had = [getattr(module, "comfy_attention", None) for module in modules]
    preferred = Preferred()
    try:
        for module in modules:
            module.comfy_attention = preferred
        with newer():
            yield preferred
    finally:
        for module, before in zip(modules, had, strict=True):
            if before is None:
                del module.comfy_attention
            else:
                module.comfy_attention = before


KINDS = {"self-attention": ("self",), "cross-attention": ("cross",), "both": ("self", "cross"), "neither": ()}


@cases(KINDS)
def check_what_a_block_prefers_is_what_computes(*kinds):
    """An observer changes no bit of it; a run transferred into itself stays itself."""
    with preferring(*kinds) as preferred:
        stock = sample(MODEL, **SHORT)
        calls, preferred.calls = preferred.calls, 0
        watch, recorder = Watch(), Recorder()
        assert torch.equal(sample(host.attach(host.attach(MODEL, watch), recorder), **SHORT), stock)
        assert preferred.calls == calls, (preferred.calls, calls)
        assert len(watch.calls) == 4 * 2
        transfer = Transfer(recorder.store)
        again = sample(host.attach(MODEL, transfer), **SHORT)
        torch.testing.assert_close(again, stock, rtol=0, atol=1e-4)
        assert str(transfer.report) == "replaced 16 of 16 calls"
        other = sample(host.attach(MODEL, Transfer(recorder.store)), positive=TARGET, **SHORT)
        assert not torch.allclose(other, sample(MODEL, positive=TARGET, **SHORT), atol=0.01)


def idle_ones() -> dict:
    recorder = Recorder()
    sample(host.attach(MODEL, recorder), **SHORT)
    return {
        "a recorder of nothing": Recorder(Selection(layers=Indices("none"))),
        "a transfer at strength 0": Transfer(recorder.store, TransferConfig(LayerMask("all:0"))),
        "sparse attention that keeps all": SparseAttention(SparseConfig("exact top-k", 1.0, minimum_tokens=0)),
    }


def check_what_wants_nothing_is_not_installed():
    """Not even in the first call: the core itself finds what a block prefers."""
    seen = []

    def look(executor, *args, **kwargs):
        options = args[5] if len(args) > 5 else kwargs["transformer_options"]
        seen.append("optimized_attention_override" in options)
        return executor(*args, **kwargs)

    for name, idle in idle_ones().items():
        seen.clear()
        model = host.attach(MODEL, idle)
        model.add_wrapper_with_key("apply_model", "look", look)  # inside of ours
        sample(model, **SHORT)
        assert seen == [False] * 2, (name, seen)
    with preferring("self", "cross"):
        stock = sample(MODEL, **SHORT)
        for name, idle in idle_ones().items():
            assert torch.equal(sample(host.attach(MODEL, idle), **SHORT), stock), name


def check_it_is_installed_in_the_steps_that_are_wanted_only():
    """And in the first one, to see whether self-attention comes by."""
    seen = []

    def look(executor, *args, **kwargs):
        options = args[5] if len(args) > 5 else kwargs["transformer_options"]
        seen.append("optimized_attention_override" in options)
        return executor(*args, **kwargs)

    recorder = Recorder(Selection(steps=Indices("2")))
    model = host.attach(MODEL, recorder)
    model.add_wrapper_with_key("apply_model", "look", look)
    sample(model, **SHORT | {"steps": 4})
    assert seen == [True, False, True, False], seen
    assert len(recorder.store) == 8


def check_an_override_of_another_node_comes_before_what_a_block_prefers():
    def override(func, q, k, v, **kwargs):
        return func(q, k, v * 2, **kwargs)

    with preferring("self", "cross") as preferred:
        model = MODEL.clone()
        model.model_options["transformer_options"]["optimized_attention_override"] = override
        stock = sample(model, **SHORT)
        assert preferred.calls == 0
        assert torch.equal(sample(host.attach(model, Watch()), **SHORT), stock)


inside.report(globals(), nothing_stays)

"""Every network that the pack serves, small and with random weights: what is seen is its self-attention, and editing it
does what it says. Started by test_host.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import inside
from inside import SHORT, cases, host, sample, text, tiny, wan

# isort: split
import torch
from pack.vdit_core.call import Interceptor
from pack.vdit_core.recording.recorder import Recorder
from pack.vdit_core.sparse.config import SparseConfig
from pack.vdit_core.sparse.sparse_attention import SparseAttention
from pack.vdit_core.transfer import LiveTransfer, Transfer

PROMPT = text()
OTHER, NOTHING = ([[change(PROMPT[0][0]), {}]] for change in (lambda x: 2 * x.flip(1), torch.zeros_like))


def conditioned(conditioning: list, **more: Any) -> list:
    return [[conditioning[0][0], more]]


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


#: Name: how the network is made, and what its prompts have besides.
FAMILIES: dict[str, Any] = {
    "Wan T2V": (lambda: tiny(), dict),
    "Wan VACE": (
        lambda: tiny(wan.VaceWanModel, model_type="vace", vace_layers=1, vace_in_dim=96),
        lambda: {"vace_frames": [random(1, 32, *inside.SMALL[1:])], "vace_mask": [random(1, 64, *inside.SMALL[1:])],
                 "vace_strength": [1.0]},
    ),
    "Wan VACE, two controls": (
        lambda: tiny(wan.VaceWanModel, model_type="vace", vace_layers=2, vace_in_dim=96),
        lambda: {"vace_frames": [random(1, 32, *inside.SMALL[1:])] * 2,
                 "vace_mask": [random(1, 64, *inside.SMALL[1:])] * 2, "vace_strength": [1.0, 0.5]},
    ),
    "Wan Camera": (
        lambda: tiny(wan.CameraWanModel, model_type="camera", in_dim=32),
        lambda: {"camera_conditions": random(1, 24, 2, 64, 64)},
    ),
    "Wan HuMo": (lambda: tiny(wan.HumoWanModel, model_type="humo"), lambda: {"audio_embed": random(1, 2, 8, 5, 1280)}),
    "Wan HuMo, a reference": (
        lambda: tiny(wan.HumoWanModel, model_type="humo"),
        lambda: {"audio_embed": random(1, 2, 8, 5, 1280), "reference_latents": [random(1, 16, 1, 8, 8)]},
    ),
    "Wan S2V": (
        lambda: tiny(wan.WanModel_S2V, model_type="s2v"),
        lambda: {"audio_embed": random(1, 25, 1024, 8), "reference_latents": [random(1, 16, 1, 8, 8)]},
    ),
    "Wan S2V, earlier frames": (
        lambda: tiny(wan.WanModel_S2V, model_type="s2v"),
        lambda: {"audio_embed": random(1, 25, 1024, 8), "reference_latents": [random(1, 16, 1, 8, 8)],
                 "reference_motion": random(1, 16, 19, 8, 8)},
    ),
}  # fmt: skip


def runs(make, more):
    """A sampler of this family: (interceptors, prompt) -> latents."""
    model, extra = make(), more()

    def run(*interceptors: Interceptor, prompt: list = PROMPT) -> torch.Tensor:
        patched = model
        for one in interceptors:
            patched = host.attach(patched, one, required=True)
        return sample(patched, conditioned(prompt, **extra), conditioned(NOTHING, **extra), **SHORT)

    return model, run


class Seen(Interceptor):
    """Keeps each call's queries, keys and values."""

    def begin(self, run):
        self.run, self.calls = run, []

    def __call__(self, call, proceed):
        self.calls.append((call.site, call.q.clone(), call.k.clone(), call.v.clone()))
        return proceed(call)


@cases(FAMILIES)
def check_what_is_seen_is_the_self_attention(make, more):
    """The reference: what each block's self-attention hands to its output projection."""
    model, run = runs(make, more)
    stock, given = run(), []
    network = model.model.diffusion_model
    hooks = [
        block.self_attn.o.register_forward_pre_hook(lambda module, args: given.append(args[0].clone()))
        for block in network.blocks
    ]
    seen = Seen()
    try:
        assert torch.equal(run(seen), stock)
    finally:
        for hook in hooks:
            hook.remove()
    assert len(seen.calls) == len(given) == len(network.blocks) * 2
    assert [site.layer for site, *_ in seen.calls] == list(range(len(network.blocks))) * 2
    for (site, q, k, v), output in zip(seen.calls, given, strict=True):
        assert q.shape[2] == site.run.grid.tokens == seen.run.grid.tokens
        map_ = (q.double() @ k.double().mT / q.shape[-1] ** 0.5).softmax(-1)
        torch.testing.assert_close(
            output.double(), (map_ @ v.double()).transpose(1, 2).flatten(2), rtol=1e-4, atol=1e-5
        )


@cases(FAMILIES)
def check_a_recording_put_into_its_own_run_changes_nothing(make, more):
    _, run = runs(make, more)
    recorder = Recorder()
    stock = run(recorder)
    transfer = Transfer(recorder.take())
    assert torch.equal(run(transfer), stock)
    assert transfer.report.replaced == transfer.report.expected > 0


class ByHand(Interceptor):
    """Another run's queries and keys, call by call."""

    def __init__(self, calls):
        self.calls = iter(calls)

    def __call__(self, call, proceed):
        _, q, k, _ = next(self.calls)
        return proceed(replace(call, q=q, k=k))


@cases(FAMILIES)
def check_a_transfer_is_other_queries_and_keys(make, more):
    _, run = runs(make, more)
    recorder, seen = Recorder(), Seen()
    run(recorder, seen, prompt=OTHER)
    found, plain = run(Transfer(recorder.take())), run()
    assert torch.equal(found, run(ByHand(seen.calls)))
    assert not torch.equal(found, plain)


@cases(FAMILIES)
def check_a_live_transfer_is_the_stored_one(make, more):
    """With one prompt for both the batch changes nothing but the rows that are computed together."""
    model, extra = make(), more()
    both = [[torch.cat([OTHER[0][0], PROMPT[0][0]]), extra]]
    noise = torch.randn((1, *inside.SMALL), generator=torch.Generator().manual_seed(7))
    recorder = Recorder()
    sample(
        host.attach(model, recorder, required=True), conditioned(OTHER, **extra), conditioned(NOTHING, **extra), **SHORT
    )
    stored = sample(
        host.attach(model, Transfer(recorder.take()), required=True),
        conditioned(PROMPT, **extra), conditioned(NOTHING, **extra), **SHORT,
    )  # fmt: skip
    live = sample(
        host.attach(model, LiveTransfer(), required=True), both, conditioned(NOTHING, **extra),
        noise=noise.repeat(2, 1, 1, 1, 1), **SHORT,
    )  # fmt: skip
    torch.testing.assert_close(live[1:], stored, rtol=1e-3, atol=1e-4)


@cases(FAMILIES)
def check_sparse_attention_that_keeps_all_is_stock(make, more):
    _, run = runs(make, more)
    assert torch.equal(run(SparseAttention(SparseConfig("exact top-k", 1.0, minimum_tokens=0, dense_first=0.0))), run())


inside.report(globals())

"""Several of the pack's nodes on one model, several models of one graph, and models that are dropped. Started by
test_host.py."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import inside
from aftermath import BASE, nothing_stays
from inside import NOTHING, SHORT, SMALL, SOURCE, TARGET, Absent, Watch, both_prompts, cases, host, sample
from interceptors import in_layers, on_disk
from variants import MODEL, with_lora

# isort: split
import comfy.samplers
import torch
from pack.vdit_core.recording.recorder import Recorder
from pack.vdit_core.selection import Indices, Selection
from pack.vdit_core.transfer import LiveTransfer, Transfer


def of(layers: str, **changes: Any) -> Recorder:
    return Recorder(Selection(layers=Indices(layers)), **changes)


#: Several recorders on one model.
RECORDERS = {
    "two alike": lambda: (Recorder(), Recorder()),
    "two, one on disk": lambda: (Recorder(), on_disk()),
    "two on disk": lambda: (on_disk(), on_disk()),
    "of other layers": lambda: (of("0-2"), of("1-3")),
    "of nothing and all": lambda: (of("none"), Recorder()),
    "exact and int8": lambda: (Recorder(), Recorder(quantization="int8")),
    "four": lambda: tuple(of(str(layer)) for layer in range(4)),
}


@cases(RECORDERS)
def check_recorders_on_one_model(make):
    recorders = make()
    model = MODEL
    for recorder in recorders:
        model = host.attach(model, recorder)
    assert torch.equal(sample(model, **SHORT), sample(MODEL, **SHORT))
    single = Recorder()
    sample(host.attach(MODEL, single), **SHORT)
    for recorder in recorders:
        for key in recorder.store._keys:
            q, k = recorder.store.get(key, torch.device("cpu"), torch.float32)
            near = {"rtol": 0, "atol": 0.0 if recorder.quantization == "none" else 0.1}
            torch.testing.assert_close((q, k), single.store.get(key, torch.device("cpu"), torch.float32), **near)


def check_one_recorder_twice_in_a_chain():
    """A graph can be wired so. It records what stands behind the first, and no more than once."""
    recorder = on_disk()
    model = host.attach(host.attach(MODEL, recorder), recorder)
    assert torch.equal(sample(model, **SHORT), sample(MODEL, **SHORT))
    assert len(recorder.store) == 16


def check_a_recorder_reused():
    """As ComfyUI's cache does: the same node's model sampled again with another prompt, seed, size, sampler."""
    for tier in ("RAM", "disk"):
        recorder = Recorder(tier=tier, folder=BASE / "temp")
        model = host.attach(MODEL, recorder)
        for changes in ({}, {"positive": TARGET}, {"size": (16, 1, 8, 8)}, {"sampler": "heun", "cfg": 1.0}, {}):
            options = SHORT | changes
            source = sample(model, **options)
            transfer = Transfer(recorder.store)
            torch.testing.assert_close(sample(host.attach(MODEL, transfer), **options), source, rtol=0, atol=1e-4)
            assert transfer.report.replaced == transfer.report.expected


def check_an_old_store_outlives_its_recorder_and_the_next_runs():
    """Whoever holds a store may use it, whatever became of the nodes."""
    recorder = on_disk()
    model = host.attach(MODEL, recorder)
    source = sample(model, **SHORT)
    store = recorder.store
    sample(model, TARGET, **SHORT)
    assert recorder.store is not store
    del recorder, model
    torch.testing.assert_close(sample(host.attach(MODEL, Transfer(store)), **SHORT), source, rtol=0, atol=1e-4)


#: Pairs of editors in the order of the graph, and how many calls the first and the second replace.
EDITORS = {
    "of other layers": (lambda s: (in_layers(s, "0"), in_layers(s, "1-3")), 4, 12),
    "of the same layers": (lambda s: (Transfer(s), Transfer(s)), 16, 16),
    "two strengths": (lambda s: (in_layers(s, "all:0.5"), in_layers(s, "2:0.5")), 16, 4),
    "of other branches": (lambda s: (in_layers(s, "all", "cond"), in_layers(s, "all", "uncond")), 8, 8),
    "a stored and a live one": (lambda s: (Transfer(s), LiveTransfer()), 16, 16),
    "a live and a stored one": (lambda s: (LiveTransfer(), Transfer(s)), 16, 16),
}  # fmt: skip


@cases(EDITORS)
def check_editors_on_one_model(make, *replaced):
    """Into a batch of source and target: whichever acts last, where both hand on the source's maps."""
    recorder = Recorder()
    sample(host.attach(MODEL, recorder), **SHORT)
    first, second = make(recorder.store)
    target = sample(host.attach(host.attach(MODEL, first), second), both_prompts(), videos=2, **SHORT)
    assert (first.report.replaced, second.report.replaced) == replaced
    torch.testing.assert_close(target[:1], sample(MODEL, **SHORT), rtol=0, atol=2e-3)


def check_models_that_are_never_sampled():
    """Clones, and clones of clones, that are dropped."""
    gc.disable()
    models = [MODEL]
    for _ in range(5):
        models.append(host.attach(models[-1].clone(), Watch()))
    references = [weakref.ref(model) for model in models[1:]]
    del models
    assert [reference() for reference in references] == [None] * 5


def check_an_attached_model_that_is_cloned_and_changed():
    """What a later node adds to its clone does not reach the one before."""
    recorder = Recorder()
    model = host.attach(MODEL, recorder)
    changed = with_lora(model)
    longer = host.attach(changed, Watch())
    stock = sample(MODEL, **SHORT)
    assert not torch.equal(sample(longer, **SHORT), stock)
    assert torch.equal(sample(model, **SHORT), stock)
    assert len(model.get_attachment("vdit_attention")) == 1


#: The model of the negative prompt.
NEGATIVE = {"the same": lambda: MODEL, "another with its own weights": lambda: with_lora(MODEL)}


@cases(NEGATIVE)
def check_two_models_in_one_guider(make):
    """DualModelGuider: the negative prompt is computed by another model, under the wrappers of the first."""
    import comfy_extras.nodes_custom_sampler as samplers

    if not hasattr(samplers, "Guider_DualModel"):
        raise Absent("this ComfyUI has no DualModelGuider")

    def run(model):
        guider = samplers.Guider_DualModel(model, make())
        guider.set_conds(SOURCE, NOTHING)
        guider.set_cfg(5.0)
        noise = torch.randn((1, *SMALL), generator=torch.Generator().manual_seed(7))
        levels = comfy.samplers.calculate_sigmas(MODEL.get_model_object("model_sampling"), "simple", 2)
        return guider.sample(noise, torch.zeros_like(noise), comfy.samplers.ksampler("euler"), levels, seed=7)

    recorder = Recorder()
    stock = run(MODEL)
    assert torch.equal(run(host.attach(MODEL, recorder)), stock)
    transfer = Transfer(recorder.store)
    torch.testing.assert_close(run(host.attach(MODEL, transfer)), stock, rtol=0, atol=1e-4)
    assert str(transfer.report) == "replaced 16 of 16 calls"


inside.report(globals(), nothing_stays)

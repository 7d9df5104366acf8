"""The host adapter on ComfyUI's own classes: other models, patches and overrides, grids. Started by test_host.py."""

from __future__ import annotations

import gc
import importlib.util
import inspect
import logging
import types
import weakref
from pathlib import Path
from unittest.mock import patch

import inside
import tiny_models
from inside import CALLS, MODEL, SOURCE, STEPS, TARGET, Watch, host, raised_by, sample, text, tiny, watched

# isort: split
import comfy.model_management
import comfy.samplers
import torch
from comfy.ldm.wan import model as wan
from comfy.patcher_extension import WrappersMP
from pack.vdit_core.call import Interceptor
from pack.vdit_core.recording.recorder import Recorder
from pack.vdit_core.selection import Indices, LayerMask, Selection
from pack.vdit_core.transfer import LiveTransfer, Transfer, TransferConfig


def check_observing_changes_no_bit():
    watch, samples, outcome = watched(MODEL)
    assert torch.equal(samples, sample(MODEL))
    assert len(watch.calls) == 9 * STEPS, len(watch.calls)  # both branches in one call
    assert [row.branch for row in watch.calls[0].rows] == ["uncond", "cond"]
    run = watch.runs[0]
    assert (str(run.model), run.grid.tokens, run.branches) == ("9 layers x 2 heads x 128", 320, ("cond", "uncond"))
    assert watch.ends == [True]
    assert torch.equal(outcome.samples, samples)


def check_a_text_as_long_as_the_grid_is_not_taken_for_self_attention():
    long = [[torch.zeros(1, 320, 128), {}]]
    watch, samples, _ = watched(MODEL, positive=long, negative=long, cfg=1.0)
    assert len(watch.calls) == 9 * STEPS, len(watch.calls)
    assert torch.equal(samples, sample(MODEL, positive=long, negative=long, cfg=1.0))


def check_everything_is_freed_after_success_error_and_interrupt():
    class Fails(Interceptor):
        def __init__(self, error):
            self.error = error

        def __call__(self, call, proceed):
            if call.site.step == 1 and call.site.layer == 4:
                raise self.error
            return proceed(call)

    stock = sample(MODEL)
    gc.collect()
    gc.disable()
    try:
        for error in (None, ValueError("oops"), comfy.model_management.InterruptProcessingException()):
            recorder, ends = Recorder(), []
            chain = [recorder] + ([Fails(error)] if error else [])
            model = MODEL
            for interceptor in chain:
                model = host.attach(model, interceptor, ends.append)
            caught = raised_by(sample, model)
            assert caught is error, caught
            assert len(ends) == len(chain)
            assert (ends[0].samples is None) == (error is not None)
            refs = [weakref.ref(x) for x in (recorder, model)]
            if error is None:
                refs.append(weakref.ref(recorder.store))
            del model, chain, interceptor, recorder, error, caught
            ends.clear()
            assert [ref() for ref in refs] == [None] * len(refs), refs
            assert set(MODEL.wrappers.get(WrappersMP.OUTER_SAMPLE, ())) == {"vdit_demo_preview"}  # it came with that
        assert torch.equal(sample(MODEL), stock)
    finally:
        gc.enable()


def check_an_earlier_override_gets_all_calls():
    seen = []

    def override(func, *args, **kwargs):
        seen.append(args[0].shape)
        return func(*args, **kwargs)

    model = MODEL.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = override
    watch, samples, _ = watched(model)
    assert len(watch.calls) == 9 * STEPS
    assert len(seen) == 2 * 9 * STEPS, len(seen)  # self- and cross-attention
    assert torch.equal(samples, sample(MODEL))


def check_an_override_set_later_is_chained_too():
    """Another node may overwrite the slot after ours: ours is put in front at each model call."""
    watch, seen = Watch(), []

    def override(func, *args, **kwargs):
        seen.append(1)
        return func(*args, **kwargs)

    model = host.attach(MODEL, watch).clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = override
    sample(model)
    assert (len(watch.calls), len(seen)) == (9 * STEPS, 2 * 9 * STEPS)


def warnings_of(function, *arguments, **options):
    """What a call returns, and the pack's warnings."""
    warnings = []
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    try:
        return function(*arguments, **options), [text for text in warnings if "VDiT" in text]
    finally:
        logging.getLogger().removeHandler(handler)


def unknown():
    """A model of a class that the pack does not know."""
    model = tiny()
    model.model.diffusion_model.__class__ = type("Unknown", (wan.WanModel,), {})
    return model


def check_a_model_whose_attention_cannot_be_reached_is_named():
    model = tiny_models.wan("WAN21_CausalAR_T2V", in_dim=16, model_type="t2v")
    message = str(raised_by(host.signature, model))
    assert message.startswith("CausalWanModel is not served: its causal attention keeps keys of its own"), message


def check_a_model_that_makes_pictures_is_refused():
    network = {"patch_size": [2, 2], "axes_dim": [16, 16], "in_channels": 8, "out_channels": 8}
    message = str(raised_by(host.signature, tiny_models.hunyuan_video(**network)))
    assert message == "HunyuanVideo is not served: it makes pictures, not videos."


def check_other_classes_run_stock_with_one_warning():
    model = unknown()
    (watch, samples, outcome), warnings = warnings_of(watched, model, positive=text(), negative=text())
    assert torch.equal(samples, sample(model, positive=text(), negative=text()))
    assert watch.calls == watch.runs == []
    assert "Unknown is not a model whose tokens this pack knows" in outcome.stock
    assert len(warnings) == 1, warnings


def check_calls_of_an_unexpected_shape_run_stock_with_one_warning():
    """Another node that repeats the batch behind our back."""

    def twice(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **conds):
        doubled = [torch.cat([each, each]) for each in (x, t, c_crossattn)]
        return executor(*doubled[:2], c_concat, doubled[2], control, transformer_options, **conds)[: len(x)]

    watch, outcomes = Watch(), []
    model = host.attach(MODEL, watch, outcomes.append)
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "twice", twice)
    samples, warnings = warnings_of(sample, model)
    torch.testing.assert_close(samples, sample(MODEL), rtol=0, atol=2e-3)
    assert watch.calls == []
    assert "has 4 rows of 320 tokens; expected 2 rows" in outcomes[0].stock
    assert len(warnings) == 1, warnings


def check_a_model_that_cannot_be_recorded_is_not_sampled_again_for_it():
    """Finish Recording says what is wrong, and leaves the sampler's cached latent alone."""
    from pack.nodes.recording import Losses, Recording

    model = unknown()
    recording, before = Recording(Recorder()), Losses.count
    samples = sample(host.attach(model, recording.recorder, recording.ended), positive=text(), negative=text())
    for latent in (samples, torch.zeros(1)):
        message = str(raised_by(recording.claim, latent))
        assert "Unknown is not a model whose tokens this pack knows" in message, message
        assert message.endswith("Record a model that the pack knows, or remove Record Attention and what hangs on it.")
    assert Losses.count == before
    sample(host.attach(MODEL, recording.recorder, recording.ended))
    assert "queue again" in str(raised_by(recording.claim, torch.zeros(1)))
    assert Losses.count == before + 1


def check_image_to_video():
    """I2V: picture tokens in the cross-attention, picture channels in the input, no further tokens."""
    model = tiny(model_type="i2v", in_dim=36)
    watch, samples, _ = watched(model, positive=text(), negative=text())
    assert len(watch.calls) == 2 * STEPS, len(watch.calls)
    assert watch.runs[0].grid.tokens == 320
    assert torch.equal(samples, sample(model, positive=text(), negative=text()))


def check_reference_pictures_are_a_prefix():
    model = tiny(in_dim_ref_conv=16)
    conds = text()
    conds[0][1]["reference_latents"] = [torch.randn(1, 16, 1, 16, 16)]
    watch, _, _ = watched(model, positive=conds, negative=conds)
    grid = watch.runs[0].grid
    assert (grid.prefix, grid.suffix, grid.tokens) == (64, 0, 384), grid
    recorder = Recorder()
    source = sample(host.attach(model, recorder), positive=conds, negative=conds)
    again = sample(host.attach(model, Transfer(recorder.store)), positive=conds, negative=conds)
    torch.testing.assert_close(again, source)


def check_two_positive_prompts_are_two_branches():
    both = [*SOURCE, *TARGET]
    watch, _, _ = watched(MODEL, positive=both)
    assert watch.runs[0].branches == ("cond", "cond 2", "uncond")
    recorder = Recorder()
    source = sample(host.attach(MODEL, recorder), positive=both)
    transfer = Transfer(recorder.store)
    torch.testing.assert_close(sample(host.attach(MODEL, transfer), positive=both), source, rtol=0, atol=1e-4)
    assert str(transfer.report) == "replaced 81 of 81 calls", transfer.report


def check_conditioning_areas():
    """Areas are computed on their own grids: recorded maps cannot fit, live transfer can."""
    left = [[SOURCE[0][0], {"area": (5, 16, 8, 0, 0, 0), "strength": 1.0}]]
    both = [*left, *TARGET]
    error = raised_by(sample, host.attach(MODEL, Recorder()), positive=both)
    assert isinstance(error, host.HostError)
    assert "recorded maps fit one grid only (Recorder)" in str(error), error
    live = LiveTransfer()
    sample(host.attach(MODEL, live), positive=both, videos=2)
    assert live.report.replaced == live.report.expected


def check_what_is_idle_is_not_in_the_way_of_areas():
    """A recorder of nothing, transfers of nothing: the stock result, bit for bit."""
    recorder = Recorder()
    sample(host.attach(MODEL, recorder))
    left = [[SOURCE[0][0], {"area": (5, 16, 8, 0, 0, 0), "strength": 1.0}]]
    both = [*left, *TARGET]
    model = MODEL
    for idle in (
        Recorder(Selection(layers=Indices("none"))),
        Transfer(recorder.store, TransferConfig(LayerMask("all:0"))),
        Transfer(recorder.store, TransferConfig(steps=Indices("none"))),
        Transfer(recorder.store, TransferConfig(heads=Indices("none"))),
    ):
        model = host.attach(model, idle)
    assert torch.equal(sample(model, positive=both), sample(MODEL, positive=both))
    watch = Watch()
    model = host.attach(host.attach(model, watch), Recorder(Selection(layers=Indices("8"), steps=Indices("2"))))
    assert "fit one grid only (Watch, Recorder)" in str(raised_by(sample, model, positive=both))
    assert {site.step for site in watch.calls} == {0}, "said at once, not when the layer comes"


def check_a_reference_on_one_prompt_only_is_named():
    model = tiny(in_dim_ref_conv=16)
    conds = text()
    conds[0][1]["reference_latents"] = [torch.randn(1, 16, 1, 16, 16)]
    error = raised_by(sample, host.attach(model, Recorder()), positive=conds, negative=text())
    assert isinstance(error, host.HostError)
    assert "Give every prompt the same reference, the negative one too" in str(error), error


def check_the_official_sparse_node_is_told_of():
    """A stand-in for ComfyUI 0.38's: a function made around a patch, in a module whose name is its path."""
    path = Path(__file__).parent / "official_sparse_attention.py"
    spec = importlib.util.spec_from_file_location("/x/comfy_extras/nodes_sparse_attention", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    class Patch:
        calls = 0

        def dense_reason(self, options, tokens, layer):
            assert (options["block_index"], tokens) == (layer, 320)
            return "in its dense blocks" if layer < 5 else None

    class Chained:
        def __init__(self, previous):
            self.previous = previous

        def __call__(self, func, *args, **kwargs):
            return self.previous(func, *args, **kwargs)

    class Told(Interceptor):
        def __init__(self):
            self.told = {}

        def __call__(self, call, proceed):
            self.told[call.site.layer] = call.sparse_elsewhere
            return proceed(call)

    def told(override):
        model, watch = MODEL.clone(), Told()
        model.model_options["transformer_options"]["optimized_attention_override"] = override
        sample(host.attach(model, watch))
        return watch.told

    def behind(previous):
        def override(func, *args, **kwargs):
            return previous(func, *args, **kwargs)

        return override

    patch = Patch()
    node = module.make_attention_override(patch, None)
    wanted = {layer: "Model Sparse Attention" if layer >= 5 else None for layer in range(9)}
    for override in (node, Chained(node), behind(Chained(node)), module.make_attention_override(Patch(), behind(node))):
        assert told(override) == wanted, override
    assert patch.calls > 0
    silent = module.make_attention_override(types.SimpleNamespace(calls=0), None)
    assert set(told(silent).values()) == {"Model Sparse Attention"}
    assert set(told(behind(lambda func, *args, **kwargs: func(*args, **kwargs))).values()) == {None}


def check_context_windows():
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    can_fix = "causal_window_fix" in inspect.signature(ContextWindowsManualNode.execute).parameters

    def windows(causal: bool):
        options = {"context_length": 3, "context_overlap": 1, "context_schedule": "standard_static",
                   "context_stride": 1, "closed_loop": False, "fuse_method": "pyramid", "dim": 2, "freenoise": False,
                   **({"causal_window_fix": causal} if can_fix else {})}  # fmt: skip
        return ContextWindowsManualNode.execute(MODEL, **options).result[0]

    model = windows(causal=False)
    recorder = Recorder()
    source = sample(host.attach(model, recorder))
    transfer = Transfer(recorder.store)
    torch.testing.assert_close(sample(host.attach(model, transfer)), source, rtol=0, atol=1e-4)
    assert transfer.report.replaced == transfer.report.expected == CALLS
    if not can_fix:  # older versions have windows of one size only
        return
    error = raised_by(sample, host.attach(windows(causal=True), Recorder()))
    assert isinstance(error, host.HostError)
    assert "Context windows cut this video into windows of several lengths" in str(error), error
    assert "causal window fix off" in str(error), error


def check_easy_cache():
    from comfy_extras.nodes_easycache import EasyCacheNode

    model = EasyCacheNode.execute(MODEL, 0.2, 0.15, 0.95, False).result[0]
    watch, samples, _ = watched(model)
    assert torch.equal(samples, sample(model))
    assert 0 < len(watch.calls) <= 9 * STEPS


def check_compiled_models():
    import comfy_api.torch_helpers as helpers

    model = MODEL.clone()
    helpers.set_torch_compile_wrapper(model=model, backend="eager")
    watch, samples, _ = watched(model)
    assert len(watch.calls) == 9 * STEPS
    torch.testing.assert_close(samples, sample(MODEL), rtol=0, atol=1e-4)


def check_lora():
    """Weight patches: the recorder sees the patched model."""
    model = MODEL.clone()
    key = "diffusion_model.blocks.0.self_attn.v.weight"
    model.add_patches({key: (0.01 * torch.randn(256, 256),)}, 1.0)
    _, samples, _ = watched(model)
    assert torch.equal(samples, sample(model))
    assert not torch.equal(samples, sample(MODEL))


def check_a_recording_that_is_short_of_ram_gets_what_is_kept_for_the_next():
    from pack.nodes import memory_budget
    from pack.vdit_core.recording.store import page_locked

    locked = set()
    pool = page_locked.PageLockedPool(lambda address, size: locked.add(address), lambda *_: locked.clear(), grace=None)
    with patch.object(page_locked, "POOL", pool):
        pool.take(2**20)
        memory_budget.granted(1).free("RAM", 2**20)
        assert pool.idle == 2**20, "given back without need"
        memory_budget.granted(1).free("GPU" if torch.cuda.is_available() else "disk", 2**60)
        assert pool.idle == 2**20, "given back for another tier"
        memory_budget.granted(1).free("pinned RAM", 2**60)
        assert pool.idle == 0
        assert not locked


inside.report(globals())

"""Runs inside ComfyUI's Python, on its real classes: the host adapter with other models, samplers and patches.

Arguments: the checkout, the pack's folder. Prints one line of JSON: for each check "ok", or what went wrong.
"""

from __future__ import annotations

import gc
import importlib.util
import inspect
import json
import logging
import sys
import traceback
import weakref

checkout, pack_folder = sys.argv[1:]
sys.argv = ["main.py"]
sys.path.insert(0, checkout)

import utils.extra_config  # noqa: E402, F401 - as main.py does, before another package of that name
from comfy.cli_args import args  # noqa: E402

args.cpu = True

import comfy.ldm.wan.model as wan  # noqa: E402
import comfy.model_management  # noqa: E402
import comfy.ops  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.samplers  # noqa: E402
import comfy.sd  # noqa: E402
import torch  # noqa: E402
from comfy.patcher_extension import WrappersMP  # noqa: E402

spec = importlib.util.spec_from_file_location(
    "pack", f"{pack_folder}/__init__.py", submodule_search_locations=[pack_folder]
)
sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["pack"])

from pack.vdit_core.call import Interceptor  # noqa: E402
from pack.vdit_core.hosts import comfy as host  # noqa: E402
from pack.vdit_core.hosts import comfy_demo  # noqa: E402
from pack.vdit_core.record import Recorder  # noqa: E402
from pack.vdit_core.transfer import LiveTransfer, Transfer  # noqa: E402

STEPS, CALLS = 3, 9 * 3 * 2
MODEL, CLIP, _ = comfy_demo.load()


def prompt(text: str) -> list:
    return CLIP.encode_from_tokens_scheduled(CLIP.tokenize(text))


SOURCE, TARGET, NOTHING = (
    prompt(t) for t in ("A car is driving on the highway", "A red car is driving on the highway", "")
)


def sample(model, positive=SOURCE, negative=NOTHING, shape=(1, 16, 5, 16, 16), cfg=5.0, sampler="euler", **options):
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(7))
    latent = torch.zeros(shape)
    return comfy.sample.sample(
        model, noise, STEPS, cfg, sampler, "simple", positive, negative, latent, disable_pbar=True, **options
    )


def raised_by(function, *arguments, **options):
    """The exception of a call, without its frames, or None."""
    try:
        function(*arguments, **options)
    except BaseException as error:
        return error.with_traceback(None)


class Watch(Interceptor):
    """Notes every call and changes nothing."""

    def __init__(self) -> None:
        self.calls, self.runs, self.ends = [], [], []

    def begin(self, run):
        self.runs.append(run)

    def __call__(self, call, proceed):
        self.calls.append(call.site)
        return proceed(call)

    def end(self, completed):
        self.ends.append(completed)


def watched(model, **options):
    """A run under observation: what it saw, what it gave, how it ended."""
    watch, outcomes = Watch(), []
    samples = sample(host.attach(model, watch, outcomes.append), **options)
    return watch, samples, outcomes[0]


def tiny(kind=wan.WanModel, **changes):
    """A small model of another Wan class, with random weights, loaded as ComfyUI loads a file."""
    config = {"model_type": "t2v", "in_dim": 16, "out_dim": 16, "dim": 128, "ffn_dim": 64, "num_heads": 1,
              "num_layers": 2, "text_dim": 4096, "operations": comfy.ops.disable_weight_init}  # fmt: skip
    network = kind(**config | changes, dtype=torch.float32, device="cpu")
    torch.manual_seed(0)
    weights = {name: 0.02 * torch.randn(x.shape) for name, x in network.state_dict().items()}
    return comfy.sd.load_diffusion_model_state_dict(weights)


def text(width=4096, length=6):
    return [[torch.randn(1, length, width, generator=torch.Generator().manual_seed(1)), {}]]


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
            assert not MODEL.wrappers.get(WrappersMP.OUTER_SAMPLE)
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


def check_other_classes_run_stock_with_one_warning():
    model = tiny(wan.VaceWanModel, model_type="vace", vace_layers=1, vace_in_dim=96)
    warnings = []
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    try:
        watch, samples, outcome = watched(model, positive=text(), negative=text())
    finally:
        logging.getLogger().removeHandler(handler)
    assert torch.equal(samples, sample(model, positive=text(), negative=text()))
    assert watch.calls == watch.runs == []
    assert "VaceWanModel is not a model whose tokens this pack knows" in outcome.stock
    assert len([w for w in warnings if "VDiT" in w]) == 1, warnings


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
    sample(host.attach(MODEL, live), positive=both, shape=(2, 16, 5, 16, 16))
    assert live.report.replaced == live.report.expected


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
    assert "switch off the causal window fix" in str(error), error


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


def check_two_experts():
    """Wan2.2 14B: two models of one class, each sampling a part of the steps, each recorded on its own."""
    levels = comfy.samplers.calculate_sigmas(MODEL.get_model_object("model_sampling"), "simple", 4)

    def both(first, second):
        half = sample(first, sigmas=levels[:3])
        return sample(second, sigmas=levels[2:], positive=TARGET), half

    recorders = Recorder(), Recorder()
    stock = both(MODEL, MODEL)
    recorded = both(*(host.attach(MODEL, r) for r in recorders))
    assert all(map(torch.equal, stock, recorded))
    transfers = [Transfer(r.store) for r in recorders]
    again = both(*(host.attach(MODEL, t) for t in transfers))
    for a, b in zip(again, stock, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)
    assert [t.report.replaced for t in transfers] == [36, 36]


def check_partial_denoise():
    recorder = Recorder()
    source = sample(host.attach(MODEL, recorder), denoise=0.5)
    assert len(recorder.store.header.sigmas) == STEPS
    again = sample(host.attach(MODEL, Transfer(recorder.store)), denoise=0.5)
    torch.testing.assert_close(again, source, rtol=0, atol=1e-4)


results = {}
with torch.inference_mode():
    for name, check in [(n[6:], f) for n, f in globals().items() if n.startswith("check_")]:
        try:
            check()
            results[name] = "ok"
        except BaseException:
            results[name] = traceback.format_exc()[-1500:]
print(json.dumps(results))

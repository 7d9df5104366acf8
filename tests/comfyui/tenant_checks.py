"""Other nodes on the same model, of the pack and of others, set before ours and after: each gets its due. And models
that compute in several threads. Started by test_host.py."""

from __future__ import annotations

import gc
import importlib
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import inside
from aftermath import BASE, nothing_stays
from inside import NOTHING, SMALL, SOURCE, TARGET, Absent, Watch, both_prompts, cases, host, raised_by, sample, shallow
from variants import MODEL, lora

# isort: split
import comfy.ldm.modules.attention as attention
import comfy.samplers
import torch
import torch.nn.functional as F
from comfy.patcher_extension import WrappersMP
from pack.vdit_core.call import Interceptor
from pack.vdit_core.record import Recorder, Selection
from pack.vdit_core.selection import Indices, LayerMask
from pack.vdit_core.transfer import LiveTransfer, Transfer, Where

RUN: dict[str, Any] = {"size": SMALL, "steps": 2}


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
    def put(model):
        try:
            kind = getattr(importlib.import_module(f"comfy_extras.{module}"), name)
        except (ImportError, AttributeError):
            raise Absent(f"this ComfyUI has no {name}") from None
        if hasattr(kind, "execute"):
            return kind.execute(model, *settings).result[0]
        return getattr(kind(), kind.FUNCTION)(model, *settings)[0]

    return put


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


def with_lora(model):
    import comfy.sd

    return comfy.sd.load_lora_for_models(model, None, lora(0.1), 1.0, 0.0)[0]


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
        assert message in str(raised_by(sample, model, **RUN))
    attached.model_options["transformer_options"].pop("optimized_attention_override")
    assert torch.equal(sample(attached, **RUN), sample(MODEL, **RUN))
    assert len(recorder.store) == 16


@cases(TENANTS, ORDERS)
def check_a_tenant_is_left_what_it_does(tenant, order):
    """Recording changes no bit of what it gives, and what was recorded of it is put in again."""
    steps = {"steps": 6} if tenant in (TENANTS["EasyCache"], TENANTS["LazyCache"]) else {}
    alone = sample(tenant(MODEL.clone()), **RUN | steps)
    recorder = Recorder()
    assert torch.equal(sample(order(tenant, lambda model: host.attach(model, recorder)), **RUN | steps), alone)
    computed = sorted({recorder.store.header.sigmas.index(e.sigma) for e in recorder.store.evaluations})
    transfer = Transfer(recorder.store, Where(steps=Indices(",".join(map(str, computed)))))
    again = sample(order(tenant, lambda model: host.attach(model, transfer)), **RUN | steps)
    torch.testing.assert_close(again, alone, rtol=0, atol=1e-4 * float(alone.abs().max()))
    assert transfer.report.replaced == transfer.report.expected == 8 * len(computed), transfer.report
    assert transfer.report.missed == 0


def on_disk(**changes: Any) -> Recorder:
    return Recorder(tier="disk", folder=BASE / "temp", **changes)


def of(layers: str, **changes: Any) -> Recorder:
    return Recorder(Selection(layers=Indices(layers)), **changes)


#: Several recorders on one model.
RECORDERS = {
    "two alike": lambda: (Recorder(), Recorder()),
    "two, one on disk": lambda: (Recorder(), on_disk()),
    "two on disk": lambda: (on_disk(), on_disk()),
    "of other layers": lambda: (of("0-2"), of("1-3")),
    "of nothing and all": lambda: (of("none"), Recorder()),
    "exact and int8": lambda: (Recorder(), Recorder(precision="int8")),
    "four": lambda: tuple(of(str(layer)) for layer in range(4)),
}


@cases(RECORDERS)
def check_recorders_on_one_model(make):
    recorders = make()
    model = MODEL
    for recorder in recorders:
        model = host.attach(model, recorder)
    assert torch.equal(sample(model, **RUN), sample(MODEL, **RUN))
    single = Recorder()
    sample(host.attach(MODEL, single), **RUN)
    for recorder in recorders:
        for key in recorder.store._keys:
            q, k = recorder.store.get(key, torch.device("cpu"), torch.float32)
            near = {"rtol": 0, "atol": 0.0 if recorder.precision == "exact" else 0.1}
            torch.testing.assert_close((q, k), single.store.get(key, torch.device("cpu"), torch.float32), **near)


def check_one_recorder_twice_in_a_chain():
    """A graph can be wired so. It records what stands behind the first, and no more than once."""
    recorder = on_disk()
    model = host.attach(host.attach(MODEL, recorder), recorder)
    assert torch.equal(sample(model, **RUN), sample(MODEL, **RUN))
    assert len(recorder.store) == 16


def check_a_recorder_reused():
    """As ComfyUI's cache does: the same node's model sampled again with another prompt, seed, size, sampler."""
    for tier in ("RAM", "disk"):
        recorder = Recorder(tier=tier, folder=BASE / "temp")
        model = host.attach(MODEL, recorder)
        for changes in ({}, {"positive": TARGET}, {"size": (16, 1, 8, 8)}, {"sampler": "heun", "cfg": 1.0}, {}):
            options = RUN | changes
            source = sample(model, **options)
            transfer = Transfer(recorder.store)
            torch.testing.assert_close(sample(host.attach(MODEL, transfer), **options), source, rtol=0, atol=1e-4)
            assert transfer.report.replaced == transfer.report.expected


def check_an_old_store_outlives_its_recorder_and_the_next_runs():
    """Whoever holds a store may use it, whatever became of the nodes."""
    recorder = on_disk()
    model = host.attach(MODEL, recorder)
    source = sample(model, **RUN)
    store = recorder.store
    sample(model, TARGET, **RUN)
    assert recorder.store is not store
    del recorder, model
    torch.testing.assert_close(sample(host.attach(MODEL, Transfer(store)), **RUN), source, rtol=0, atol=1e-4)


def in_layers(store: Any, layers: str, branches: str = "all") -> Transfer:
    return Transfer(store, Where(LayerMask(layers), branches=branches))


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
    sample(host.attach(MODEL, recorder), **RUN)
    first, second = make(recorder.store)
    target = sample(host.attach(host.attach(MODEL, first), second), both_prompts(), videos=2, **RUN)
    assert (first.report.replaced, second.report.replaced) == replaced
    torch.testing.assert_close(target[:1], sample(MODEL, **RUN), rtol=0, atol=2e-3)


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
    stock = sample(MODEL, **RUN)
    assert not torch.equal(sample(longer, **RUN), stock)
    assert torch.equal(sample(model, **RUN), stock)
    assert len(model.get_attachment("vdit_attention")) == 1


def apart(executor, model, conds, x, timestep, options):
    """Each prompt in a thread of its own, at the same time, as ComfyUI does with several GPUs."""

    @torch.inference_mode()
    def one(n: int):
        return executor(model, [cond if i == n else None for i, cond in enumerate(conds)], x, timestep, options)[n]

    with ThreadPoolExecutor(len(conds)) as threads:
        return list(threads.map(one, range(len(conds))))


#: What is done in several threads at once: the chain, and how many calls it has.
THREADED = {
    "recording to RAM": lambda store: [Recorder()],
    "recording to disk": lambda store: [on_disk()],
    "transfer from RAM or disk": lambda store: [Transfer(store)],
    "transfer, and recording to disk": lambda store: [Transfer(store), on_disk()],
    "half a transfer": lambda store: [in_layers(store, "all:0.5")],
}
STORES = {"a store in RAM": Recorder, "a store on disk": on_disk}


@cases(THREADED, STORES)
def check_threads(make, recorder):
    """Each prompt's calls at once with the other's: as one after the other, again and again."""
    recorder = recorder()
    stock = sample(host.attach(MODEL, recorder), **RUN)
    for _ in range(2):
        chain = make(recorder.store)
        model = MODEL
        for interceptor in chain:
            model = host.attach(model, interceptor)
        model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "apart", apart)
        torch.testing.assert_close(sample(model, **RUN), stock, rtol=0, atol=1e-4)
        for interceptor in chain:
            if isinstance(interceptor, Transfer):
                assert str(interceptor.report) == "replaced 16 of 16 calls"
            else:
                assert len(interceptor.store) == 16
                again = Transfer(interceptor.store)
                torch.testing.assert_close(sample(host.attach(MODEL, again), **RUN), stock, rtol=0, atol=1e-4)


@cases(STORES)
def check_an_error_in_one_thread(recorder):
    class Fails(Interceptor):
        def __call__(self, call, proceed):
            if (call.site.step, call.site.layer, call.site.rows[0].branch) == (1, 2, "uncond"):
                raise ValueError("in a thread")
            return proceed(call)

    recorder = recorder()
    stock = sample(host.attach(MODEL, recorder), **RUN)
    model = host.attach(host.attach(MODEL, Transfer(recorder.store)), on_disk())
    broken = host.attach(model, Fails())
    for each in (broken, model):
        each.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "apart", apart)
    assert "in a thread" in str(raised_by(sample, broken, **RUN))
    torch.testing.assert_close(sample(model, **RUN), stock, rtol=0, atol=1e-4)


def check_comfyuis_own_threads():
    """Its path for several GPUs, with a second copy of the model on what it takes for a second device."""
    second = shallow()
    if not hasattr(second, "is_multigpu_base_clone"):
        raise Absent("this ComfyUI has no MultiGPU")
    second.is_multigpu_base_clone = True
    second.load_device = torch.device("cpu", 0)
    doubled = MODEL.clone()
    doubled.set_additional_models("multigpu", [second])
    seen = []
    recorder = on_disk()
    watch = Watch()
    model = host.attach(host.attach(doubled, recorder), watch, seen.append)
    stock = sample(MODEL, **RUN)
    torch.testing.assert_close(sample(model, **RUN), stock, rtol=0, atol=1e-4)
    assert {len(site.rows) for site in watch.calls} == {1}, "each prompt on a device of its own"
    transfer = Transfer(recorder.store)
    torch.testing.assert_close(sample(host.attach(doubled, transfer), **RUN), stock, rtol=0, atol=1e-4)
    assert str(transfer.report) == "replaced 16 of 16 calls"
    del model, doubled, second
    gc.collect()  # two models that know each other are ComfyUI's own cycle


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

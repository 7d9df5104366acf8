"""Models that compute in several threads at once, as ComfyUI does with several GPUs. Started by test_host.py."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import inside
from aftermath import nothing_stays
from inside import SHORT, Absent, Watch, cases, host, raised_by, sample, shallow
from interceptors import in_layers, on_disk
from variants import MODEL

# isort: split
import torch
from comfy.patcher_extension import WrappersMP
from pack.vdit_core.call import Interceptor
from pack.vdit_core.recording.recorder import Recorder
from pack.vdit_core.transfer import Transfer


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
    stock = sample(host.attach(MODEL, recorder), **SHORT)
    for _ in range(2):
        chain = make(recorder.store)
        model = MODEL
        for interceptor in chain:
            model = host.attach(model, interceptor)
        model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "apart", apart)
        torch.testing.assert_close(sample(model, **SHORT), stock, rtol=0, atol=1e-4)
        for interceptor in chain:
            if isinstance(interceptor, Transfer):
                assert str(interceptor.report) == "replaced 16 of 16 calls"
            else:
                assert len(interceptor.store) == 16
                again = Transfer(interceptor.store)
                torch.testing.assert_close(sample(host.attach(MODEL, again), **SHORT), stock, rtol=0, atol=1e-4)


@cases(STORES)
def check_an_error_in_one_thread(recorder):
    class Fails(Interceptor):
        def __call__(self, call, proceed):
            if (call.site.step, call.site.layer, call.site.rows[0].branch) == (1, 2, "uncond"):
                raise ValueError("in a thread")
            return proceed(call)

    recorder = recorder()
    stock = sample(host.attach(MODEL, recorder), **SHORT)
    model = host.attach(host.attach(MODEL, Transfer(recorder.store)), on_disk())
    broken = host.attach(model, Fails())
    for each in (broken, model):
        each.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "apart", apart)
    assert "in a thread" in str(raised_by(sample, broken, **SHORT))
    torch.testing.assert_close(sample(model, **SHORT), stock, rtol=0, atol=1e-4)


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
    stock = sample(MODEL, **SHORT)
    torch.testing.assert_close(sample(model, **SHORT), stock, rtol=0, atol=1e-4)
    assert {len(site.rows) for site in watch.calls} == {1}, "each prompt on a device of its own"
    transfer = Transfer(recorder.store)
    torch.testing.assert_close(sample(host.attach(doubled, transfer), **SHORT), stock, rtol=0, atol=1e-4)
    assert str(transfer.report) == "replaced 16 of 16 calls"
    del model, doubled, second
    gc.collect()  # two models that know each other are ComfyUI's own cycle


inside.report(globals(), nothing_stays)

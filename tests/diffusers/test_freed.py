"""What a run held goes with the last who holds it, however the run ended: without the cyclic collector, which may come
late or never, while a recording on disk is many gigabytes."""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from vdit_core.call import Interceptor
from vdit_core.hosts.diffusers import attach
from vdit_core.recording.recorder import Recorder
from vdit_core.selection import Indices, Selection
from vdit_core.transfer import LiveTransfer, Transfer

PROMPT, STEPS = "A car is driving on the highway", 2


class Raises(Interceptor):
    """Raises at one place of the run."""

    def __init__(self, error: type[BaseException], at: str) -> None:
        self.error, self.at = error, at

    def begin(self, run):
        if self.at == "begin":
            raise self.error("no")

    def __call__(self, call, proceed):
        if self.at == "call" and (call.site.step, call.site.layer) == (1, 4):
            raise self.error("no")
        return proceed(call)

    def end(self, completed):
        if self.at == "end":
            raise self.error("no")


def whole(model, *interceptors) -> None:
    with attach(model.pipe, *interceptors):
        model.sample([PROMPT], [7], steps=STEPS)


def twice(model, *interceptors) -> None:
    whole(model, *interceptors)
    whole(model, *interceptors)


def broken(error: type[BaseException], at: str) -> Callable[..., None]:
    def run(model, *interceptors) -> None:
        try:
            whole(model, *interceptors, Raises(error, at))
        except error:
            return
        pytest.fail("nothing was raised")

    return run


def interrupted(model, *interceptors) -> None:
    """As a pipeline is told to: it skips the steps that are left."""

    def stop(pipe, step, timestep, kwargs):
        pipe._interrupt = True
        return kwargs

    with attach(model.pipe, *interceptors):
        context = model.text.encode([PROMPT])
        model.pipe(prompt_embeds=context, negative_prompt_embeds=0 * context, height=64, width=64, num_frames=5,
                   num_inference_steps=3, callback_on_step_end=stop, output_type="latent")  # fmt: skip


def without_a_run(model, *interceptors) -> None:
    with attach(model.pipe, *interceptors):
        pass


def never_entered(model, *interceptors) -> None:
    attach(model.pipe, *interceptors)


ENDS = {
    "whole": whole,
    "twice": twice,
    "error at the beginning": broken(ValueError, "begin"),
    "error in attention": broken(RuntimeError, "call"),
    "no memory": broken(MemoryError, "call"),
    "Ctrl-C": broken(KeyboardInterrupt, "call"),
    "error at the end": broken(OSError, "end"),
    "interrupted": interrupted,
    "without a run": without_a_run,
    "never entered": never_entered,
}


@pytest.mark.parametrize("tier", ["RAM", "disk"])
@pytest.mark.parametrize("end", ENDS)
def test_a_recorder_and_its_files_go_at_once(demo_model, tmp_path, no_collector, end, tier):
    recorder = Recorder(Selection(Indices("0-4")), tier=tier, folder=tmp_path)
    gone = weakref.ref(recorder)
    ENDS[end](demo_model, recorder)
    assert end not in ("whole", "twice") or len(recorder.store)
    del recorder
    assert gone() is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("end", ["whole", "error in attention"])
def test_a_transfer_lets_go_of_its_store(demo_model, tmp_path, no_collector, end):
    recorder = Recorder(Selection(Indices("0-4")), tier="disk", folder=tmp_path)
    whole(demo_model, recorder)
    store = recorder.take()
    transfer = Transfer(store)
    gone = [weakref.ref(each) for each in (store, transfer)]
    ENDS[end](demo_model, transfer)
    del store, transfer, recorder
    assert [each() for each in gone] == [None, None]
    assert list(tmp_path.iterdir()) == []


def test_a_live_transfer_goes(demo_model, no_collector):
    live = LiveTransfer()
    gone = weakref.ref(live)
    with attach(demo_model.pipe, live):
        demo_model.sample([PROMPT, "A red car is driving on the highway"], [7, 7], steps=STEPS)
    del live
    assert gone() is None


@pytest.fixture(scope="module")
def forward():
    """A model of Wan2.1-1.3B's shape with one layer, as the benchmarks run it: no pipeline, and no sampler."""
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        from wan_forward import Forward
    finally:
        sys.path.remove(folder)
    return Forward((1, 2, 3), layers=1)


@pytest.mark.parametrize("end", ["whole", "error", "Ctrl-C", "dropped twice"])
@pytest.mark.parametrize("tier", ["RAM", "disk"])
def test_a_recording_of_a_bare_model_goes_at_once(forward, tmp_path, no_collector, end, tier):
    recorder = Recorder(tier=tier, folder=tmp_path)
    raised = {"error": ValueError, "Ctrl-C": KeyboardInterrupt}.get(end)

    class Last(Interceptor):
        def __call__(self, call, proceed):
            if call.site.step == 1:
                raise raised("no")
            return proceed(call)

    with contextlib.suppress(*filter(None, [raised])):
        forward.seconds(recorder, *[Last()] * (raised is not None), steps=2)
    store = None if raised else recorder.take()
    gone = [weakref.ref(each) for each in (recorder, store) if each is not None]
    if end == "dropped twice":
        store.drop()
        store.drop()
    del recorder, store
    assert [each() for each in gone if each() is not None] == []
    assert list(tmp_path.iterdir()) == []

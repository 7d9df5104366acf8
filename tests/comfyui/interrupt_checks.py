"""Runs that break off: interrupts, exceptions of the model, no memory, no disk. The error is the one that was raised,
nothing stays, and the same nodes' next run is right. Started by test_host.py."""

from __future__ import annotations

import errno
import shutil
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import inside
from aftermath import BASE, nothing_stays
from inside import SMALL, TARGET, cases, host, raised_by, sample
from variants import MODEL

# isort: split
import comfy.model_management
import torch
from comfy.patcher_extension import WrappersMP
from pack.vdit_core.call import Interceptor
from pack.vdit_core.recording import quantization, recorder
from pack.vdit_core.recording.recorder import Recorder
from pack.vdit_core.recording.store import AttentionStore, reader, storage, writer
from pack.vdit_core.transfer import Transfer, stored

InterruptProcessingException = comfy.model_management.InterruptProcessingException
NO_MEMORY = comfy.model_management.OOM_EXCEPTION("no memory left (injected)")
NO_SPACE = OSError(errno.ENOSPC, "No space left on device")
BROKEN = OSError(errno.EIO, "Input/output error")

TIERS = {"RAM": "RAM", "disk": "disk"}
RUN: dict[str, Any] = {"size": SMALL, "steps": 3}
KEPT = Path(tempfile.mkdtemp(prefix="vdit-source-"))


def source(tier: str) -> AttentionStore:
    """What all cases transfer from."""
    recorder = Recorder(tier=tier, folder=KEPT)
    sample(host.attach(MODEL, recorder), **RUN)
    return recorder.store


with torch.inference_mode():
    SOURCES = {tier: source(tier) for tier in TIERS}
    RIGHT = sample(host.attach(MODEL, Transfer(SOURCES["RAM"])), TARGET, **RUN)


class Both:
    """A transfer, and behind it a recorder of what it put in."""

    def __init__(self, tier: str) -> None:
        self.recorder = Recorder(tier=tier, folder=BASE / "temp")
        self.transfer = Transfer(SOURCES[tier])
        self.ends: list[host.Outcome] = []
        self.model = host.attach(host.attach(MODEL, self.transfer), self.recorder, self.ends.append)

    def sample(self, **more: Any) -> torch.Tensor:
        return sample(self.model, TARGET, **RUN | more)

    def check_broken_off(self, error: BaseException | None, expected: BaseException | type) -> None:
        """That a run ended with this error, and heard of its end, once."""
        kind = expected if isinstance(expected, type) else type(expected)
        assert isinstance(error, kind), repr(error)
        assert isinstance(expected, type) or str(expected.args[-1]) in str(error), error
        assert [outcome.samples for outcome in self.ends] == [None]
        assert "has not ended well" in str(raised_by(lambda: self.recorder.store))

    def check_next_run(self, **more: Any) -> None:
        """That the same nodes work as if nothing had been."""
        assert torch.equal(self.sample(**more), RIGHT)
        assert str(self.transfer.report) == "replaced 24 of 24 calls"
        assert len(self.recorder.store) == 24
        again = Transfer(self.recorder.store)
        assert torch.equal(sample(host.attach(MODEL, again), TARGET, **RUN), RIGHT)


class Counted(Interceptor):
    """Behind all else: calls `act` in one layer of one step, before the attention function."""

    def __init__(self, step: int, layer: int, act) -> None:
        self.step, self.layer, self.act = step, layer, act

    def __call__(self, call, proceed):
        if (call.site.step, call.site.layer) == (self.step, self.layer):
            self.act()
        return proceed(call)


def interrupt(*_: Any) -> None:
    """What ComfyUI's button does; the run notices at the next layer that needs weights."""
    comfy.model_management.interrupt_current_processing(True)


#: In which step and layer the button is pressed.
PRESSED = {
    "step 0, layer 0": (0, 0),
    "step 0, layer 2": (0, 2),
    "step 0, layer 3": (0, 3),
    "step 1, layer 0": (1, 0),
    "step 1, layer 1": (1, 1),
    "step 2, layer 2": (2, 2),
    "step 2, layer 3": (2, 3),
}


@cases(PRESSED, TIERS)
def check_interrupted_inside_attention(step, layer, tier):
    both = Both(tier)
    pressed = host.attach(both.model, Counted(step, layer, interrupt))
    both.check_broken_off(raised_by(sample, pressed, TARGET, **RUN), InterruptProcessingException)
    del pressed
    both.ends.clear()
    both.check_next_run()


STEPS = {"before the first": -1, "after the first": 0, "after the second": 1}


@cases(STEPS, TIERS)
def check_interrupted_between_steps(step, tier):
    both = Both(tier)
    if step < 0:
        interrupt()
    error = raised_by(both.sample, callback=lambda done, *_: interrupt() if done == step else None)
    both.check_broken_off(error, InterruptProcessingException)
    both.check_next_run()


@cases(TIERS)
def check_interrupted_when_all_is_done(tier):
    """Too late: the run is whole, and the next one is not touched, as ComfyUI forgets the button before it."""
    both = Both(tier)
    assert torch.equal(both.sample(callback=lambda done, *_: interrupt() if done == 2 else None), RIGHT)
    comfy.model_management.interrupt_current_processing(False)
    both.check_next_run()


@cases(TIERS)
def check_interrupted_again_and_again(tier):
    """Every step in turn, with one pair of nodes: nothing adds up."""
    both = Both(tier)
    for step in range(3):
        pressed = host.attach(both.model, Counted(step, 3 - step, interrupt))
        both.check_broken_off(raised_by(sample, pressed, TARGET, **RUN), InterruptProcessingException)
        del pressed
        both.ends.clear()
    both.check_next_run()


ERRORS = {
    "a bug": ValueError("a bug (injected)"),
    "no memory": NO_MEMORY,
    "no RAM": MemoryError("no RAM (injected)"),
    "Ctrl-C": KeyboardInterrupt("Ctrl-C (injected)"),
}


def wrapper(model, raises, kind: str, after: bool = False) -> None:
    """Another node's wrapper that raises before or after what it wraps."""

    def wrapped(executor, *args, **kwargs):
        if not after:
            raises()
        result = executor(*args, **kwargs)
        raises()
        return result

    model.add_wrapper_with_key(kind, "other", wrapped)


def override(model, raises, cross: bool) -> None:
    """Another pack's attention function that raises in self- or cross-attention."""

    def attention(func, q, k, v, *args, **kwargs):
        if kwargs["transformer_options"]["block_index"] == 2 and (k.shape[1] != q.shape[1]) == cross:
            raises()
        return func(q, k, v, *args, **kwargs)

    model.model_options["transformer_options"]["optimized_attention_override"] = attention


#: Where something of ComfyUI's, or of another pack, raises.
PLACES = {
    "loading the model": lambda *at: wrapper(*at, WrappersMP.PREPARE_SAMPLING),
    "before the model": lambda *at: wrapper(*at, WrappersMP.DIFFUSION_MODEL),
    "behind the model": lambda *at: wrapper(*at, WrappersMP.DIFFUSION_MODEL, after=True),
    "self-attention": lambda *at: override(*at, cross=False),
    "cross-attention": lambda *at: override(*at, cross=True),
    "guidance": lambda *at: wrapper(*at, WrappersMP.PREDICT_NOISE, after=True),
    "behind the sampler": lambda *at: wrapper(*at, WrappersMP.OUTER_SAMPLE, after=True),
}


@cases(PLACES, ERRORS)
def check_an_error_passes_as_it_is(place, error):
    """On disk, where threads are under way; nothing may swallow it, or put another in its place."""
    faults = [error]

    def raises():
        if faults:
            raise faults.pop()

    both = Both("disk")
    place(both.model, raises)
    assert raised_by(both.sample) is error
    error.__traceback__ = error.__context__ = None
    both.check_broken_off(error, error)
    both.check_next_run()


def nth(function, n: int, error: BaseException):
    """A function that raises when called for the n-th time, and works from then on."""
    calls = iter(range(10**6))
    lock = threading.Lock()

    def counted(*args, **kwargs):
        with lock:
            number = next(calls)
        if number == n:
            raise error
        return function(*args, **kwargs)

    return counted


@contextmanager
def failing(where: Any, name: str, n: int, error: BaseException):
    with patch.object(where, name, nth(getattr(where, name), n, error)):
        yield


RAM, DISK = "RAM", "disk"

#: Which of the pack's own functions fails, at which call, with what; in which tier.
OWN = {
    "the recorder's copy": (quantization, "encode", 0, NO_MEMORY, RAM),
    "a later copy": (quantization, "encode", 21, NO_MEMORY, RAM),
    "a copy on its way to disk": (quantization, "encode", 20, NO_MEMORY, DISK),
    "the recorder's choice of rows": (recorder, "_pick", 10, NO_MEMORY, RAM),
    "a folder for the recording": (storage.tempfile, "mkdtemp", 0, NO_SPACE, DISK),
    "a thread that writes": (threading.Thread, "start", 2, RuntimeError("can't start new thread"), DISK),
    "a step's file, begun": (writer.Path, "touch", 1, NO_SPACE, DISK),
    "an entry, written": (writer.StoreWriter, "write", 0, NO_SPACE, DISK),
    "the last entry, written": (writer.StoreWriter, "write", 23, NO_SPACE, DISK),
    "RAM for an entry, written": (writer.StoreWriter, "write", 7, MemoryError("no RAM"), DISK),
    "a step's file, ended": (writer.StoreWriter, "finish", 1, NO_SPACE, DISK),
    "a step's file, renamed": (writer.Path, "rename", 2, BROKEN, DISK),
    "a step's file, checked": (storage, "StoreReader", 2, BROKEN, DISK),
    "the transfer's read": (AttentionStore, "get", 0, NO_MEMORY, RAM),
    "a later read": (AttentionStore, "get", 20, NO_MEMORY, RAM),
    "the first read from disk": (reader.StoreReader, "read", 0, BROKEN, DISK),
    "a prefetch": (reader.StoreReader, "read", 1, BROKEN, DISK),
    "the last prefetch": (reader.StoreReader, "read", 23, BROKEN, DISK),
    "RAM for a prefetch": (reader.torch, "empty", 12, NO_MEMORY, DISK),
    "the thread of the prefetch": (threading.Thread, "start", 4, RuntimeError("can't start new thread"), DISK),
    "the copy that maps are put into": (stored, "put_rows", 10, NO_MEMORY, RAM),
}


@cases(OWN)
def check_the_pack_fails_itself(where, name, n, error, tier):
    both = Both(tier)
    with failing(where, name, n, error):
        found = raised_by(both.sample)
    both.check_broken_off(found, error)
    error.__traceback__ = error.__context__ = found.__context__ = found.__cause__ = None
    del found
    both.check_next_run()


inside.report(globals(), nothing_stays)
SOURCES.clear()
shutil.rmtree(KEPT, ignore_errors=True)

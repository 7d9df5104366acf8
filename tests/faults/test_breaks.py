"""Runs that break off: whatever is raised, wherever, comes through as it is; everything is let go; and the next run,
with the same tools, is right."""

from __future__ import annotations

import contextlib
import gc
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.allocations import Allocations
from faults.breaking import Raises, failing_backend
from synthetic_host import Outputs, SyntheticHost, same

from vdit_core.call import Interceptor, ModelSignature, TokenGrid
from vdit_core.recording.recorder import Recorder
from vdit_core.recording.store import AttentionStore, Evaluation, Key
from vdit_core.selection import Indices, LayerMask, Selection
from vdit_core.sinks.control import SinkControl, Targets
from vdit_core.sinks.observer import SinkObserver
from vdit_core.sparse.config import SparseConfig
from vdit_core.sparse.sparse_attention import SparseAttention
from vdit_core.transfer import LiveTransfer, Transfer, TransferConfig

CPU = torch.device("cpu")


def here(**fields) -> SyntheticHost:
    """A run of 12 calls: 2 steps, 2 branches, 3 layers."""
    return SyntheticHost(sigmas=(1.0, 0.5), **fields)


def contents(store: AttentionStore) -> dict[Any, torch.Tensor]:
    """All that a store holds, by entry and q or k."""
    entries = {key: store.get(key, CPU, torch.float32) for key in store._keys}
    return {(key, name): x for key, pair in entries.items() for name, x in zip("qk", pair, strict=True)}


def recorded(tier: str = "RAM", quantization: str = "none", folder: Path | None = None, **fields) -> AttentionStore:
    recorder = Recorder(quantization=quantization, tier=tier, folder=folder)
    here(**fields).run(1, recorder)
    return recorder.take()


def loaded(folder: Path, quantization: str = "none", **fields) -> AttentionStore:
    path = folder / f"source {uuid.uuid4()}.safetensors"
    recorded(quantization=quantization, **fields).save(path)
    return AttentionStore.load(path)


@dataclass
class Tool:
    """make: the interceptor, given a folder. fields: of the host that it works on."""

    make: Callable[[Path], Interceptor]
    fields: dict[str, Any] = field(default_factory=dict)

    def run(self, interceptor: Interceptor, *others: Interceptor, **options) -> Outputs:
        """The outputs of a run; a recorder's are what it recorded."""
        outputs = here(**self.fields).run(2, interceptor, *others, **options)
        return self.result(interceptor, outputs)

    def result(self, interceptor: Interceptor, outputs: Outputs) -> Outputs:
        return contents(interceptor.take()) if isinstance(interceptor, Recorder) else outputs


TARGETS = Targets(ModelSignature(3, 2, 8), TokenGrid(2, 3, 3), {(0, 0): (4,), (2, 1): (1, 2)})
PART = Selection(Indices("0, 2"), Indices("1"))
TWO = {"samples": 2}
TOGETHER = {"samples": 2, "batched": True}
SPARSE = SparseConfig("exact top-k", 0.5, dense_first=0.0, minimum_tokens=0, if_slower="sparse")

TOOLS = {
    "recorder": Tool(lambda at: Recorder()),
    "recorder, int8": Tool(lambda at: Recorder(quantization="int8"), TOGETHER),
    "recorder of a part": Tool(lambda at: Recorder(PART), TOGETHER),
    "recorder on the device": Tool(lambda at: Recorder(tier="GPU")),
    "recorder on disk": Tool(lambda at: Recorder(tier="disk", folder=at)),
    "recorder on disk, int8": Tool(lambda at: Recorder(PART, "int8", "disk", folder=at), TOGETHER),
    "transfer": Tool(lambda at: Transfer(recorded())),
    "transfer, int8": Tool(lambda at: Transfer(recorded(quantization="int8"))),
    "transfer of a part": Tool(
        lambda at: Transfer(recorded(), TransferConfig(LayerMask("0, 2:0.5"), Indices("1"))), TOGETHER
    ),
    "transfer of three": Tool(lambda at: Transfer(recorded(samples=2), TransferConfig(branches="uncond")), TOGETHER),
    "transfer from disk": Tool(lambda at: Transfer(recorded("disk", folder=at))),
    "transfer from disk, int8": Tool(
        lambda at: Transfer(recorded("disk", "int8", at), TransferConfig(LayerMask("1-2:0.5")))
    ),
    "transfer from a file": Tool(lambda at: Transfer(loaded(at)), TOGETHER),
    "live transfer": Tool(lambda at: LiveTransfer(), TWO),
    "live transfer, together": Tool(lambda at: LiveTransfer(), TOGETHER),
    "live transfer of a part": Tool(
        lambda at: LiveTransfer(TransferConfig(LayerMask("0-1:0.5"), Indices("0"))), TOGETHER
    ),
    "live transfer, masks": Tool(
        lambda at: LiveTransfer(masks=[LayerMask(text) for text in ("0", "1:0.5", "none")]), {"samples": 4}
    ),
    "sparse attention": Tool(lambda at: SparseAttention(SPARSE)),
    "sink control": Tool(lambda at: SinkControl(TARGETS)),
    "sink control, cap": Tool(lambda at: SinkControl(TARGETS, "cap", 0.05)),
    "sink control, mean": Tool(lambda at: SinkControl(TARGETS, "mean")),
    "sink observer": Tool(lambda at: SinkObserver()),
}
all_tools = pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS.keys())
ERRORS = {
    "interrupt": KeyboardInterrupt,
    "error": lambda: ValueError("from the model"),
    "out of memory": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
}

#: Those that leave the computing to the model's own attention.
CALLING = [name for name in TOOLS if name not in ("sparse attention", "sink control", "sink control, cap")]


def broken(tool: Tool, interceptor: Interceptor, error: BaseException, *others: Interceptor, **options) -> None:
    """The run raises this very error."""
    with pytest.raises(type(error)) as caught:
        tool.run(interceptor, *others, **options)
    assert caught.value is error
    if isinstance(interceptor, Recorder):
        with pytest.raises(RuntimeError, match="the sampling run has not ended well"):
            interceptor.take()


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS.keys())
@pytest.mark.parametrize("name", CALLING)
def test_what_the_model_raises_comes_through(disk, name, error):
    """In each of its attention calls in turn; the same tool every time."""
    tool = TOOLS[name]
    interceptor, wanted = tool.make(disk), tool.run(tool.make(disk))
    counted = failing_backend(ValueError(), None)
    tool.run(interceptor, backend=counted)
    assert len(counted.calls) >= 6
    for call in range(0, len(counted.calls), 1 if error is KeyboardInterrupt else 5):
        broken(tool, interceptor, raised := error(), backend=failing_backend(raised, call))
    assert same(tool.run(interceptor), wanted)


@pytest.mark.parametrize("behind", [False, True], ids=["before ours", "behind ours"])
@pytest.mark.parametrize("when", ["begin", "before", "behind"])
@all_tools
def test_what_another_interceptor_raises_comes_through(disk, tool, when, behind):
    interceptor, error = tool.make(disk), KeyboardInterrupt()
    wanted = tool.run(tool.make(disk))
    host = here(**tool.fields)
    chain = [Raises(error, when, call=4), interceptor]
    with pytest.raises(KeyboardInterrupt) as caught:
        host.run(2, *(chain[::-1] if behind else chain))
    assert caught.value is error
    assert same(tool.run(interceptor), wanted)


@pytest.mark.parametrize("behind", [False, True], ids=["before ours", "behind ours"])
@all_tools
def test_an_end_that_raises_keeps_no_other_from_its_own(disk, tool, behind):
    """The run was whole: what was recorded is there."""
    interceptor, error = tool.make(disk), ValueError("while ending")
    wanted = tool.run(tool.make(disk))
    chain = [Raises(error, "end"), interceptor]
    with pytest.raises(ValueError, match="while ending") as caught:
        here(**tool.fields).run(2, *(chain[::-1] if behind else chain))
    assert caught.value is error
    if isinstance(interceptor, Recorder):
        assert same(contents(interceptor.take()), wanted)
    assert same(tool.run(interceptor), wanted)


DISK_TOOLS = [name for name in TOOLS if "disk" in name or "file" in name]


@pytest.mark.parametrize("joined", range(4))
@pytest.mark.parametrize("name", DISK_TOOLS)
def test_an_interrupt_while_threads_are_waited_for_leaves_none(disk, monkeypatch, name, joined):
    """At the end of a run, while the nth thread is."""
    tool = TOOLS[name]
    interceptor, wanted = tool.make(disk), tool.run(tool.make(disk))
    plain, waits = threading.Thread.join, []

    def join(thread, timeout=None):
        if thread.name.startswith("vdit"):
            waits.append(1)
            if len(waits) == joined + 1:
                raise KeyboardInterrupt
        plain(thread, timeout)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", join)
        if isinstance(interceptor, Recorder) or joined == 0:
            broken_by_interrupt(tool, interceptor)
        else:
            tool.run(interceptor)  # prefetches with one thread
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith("vdit"):
            plain(thread, 10)
    assert same(tool.run(interceptor), wanted)


def broken_by_interrupt(tool: Tool, interceptor: Interceptor) -> None:
    with pytest.raises(KeyboardInterrupt):
        tool.run(interceptor)


def test_threads_that_cannot_be_begun_are_none(host, disk, monkeypatch):
    plain, begun = threading.Thread.start, []

    def start(thread):
        if thread.name.startswith("vdit"):
            begun.append(1)
            if len(begun) == 3:
                raise RuntimeError("can't start new thread")
        plain(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            host().run(1, Recorder(tier="disk", folder=disk))


# Memory that runs out, at every place where the pack asks for some.

OUT_OF_MEMORY = {
    "OutOfMemoryError": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "RuntimeError": lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"
    ),
    "MemoryError": MemoryError,
}
ALLOCATING = [name for name in TOOLS if not name.startswith(("sparse", "sink"))]


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY.keys())
@pytest.mark.parametrize("name", ALLOCATING)
def test_memory_that_runs_out_anywhere_ends_the_run_and_is_given_back(disk, monkeypatch, name, error):
    tool = Tool(TOOLS[name].make, TOOLS[name].fields)
    interceptor, wanted = tool.make(disk), tool.run(tool.make(disk))
    kept = owned(interceptor)
    with monkeypatch.context() as patch:
        counted = Allocations(patch)
        tool.run(interceptor)
    places = range(0, counted.count, 1 if error is OUT_OF_MEMORY["OutOfMemoryError"] else 11)
    assert counted.count > 10
    for place in places:
        raised, outputs = error(), None
        with monkeypatch.context() as patch:
            failing = Allocations(patch, place, raised)
            with contextlib.suppress(type(raised)):
                outputs = tool.run(interceptor)
        if outputs is None:
            assert raised.__traceback__ is not None  # it is this one that came
        else:
            assert not failing.failed or reads_ahead(interceptor)  # of what was then not needed
            assert same(outputs, wanted)
        del outputs, raised
        gc.collect()
        assert failing.alive(kept) == 0, place
        assert [thread.name for thread in threading.enumerate() if thread.name.startswith("vdit")] == []
        if isinstance(interceptor, Recorder):
            assert list(disk.iterdir()) == []
    assert same(tool.run(interceptor), wanted)


def owned(interceptor: Interceptor) -> set[int]:
    """The addresses of what a tool holds between runs: its source in RAM."""
    entries = getattr(interceptor.store._storage, "_entries", {}) if isinstance(interceptor, Transfer) else {}
    return {part.untyped_storage().data_ptr() for entry in entries.values() for part in entry.values()}


def reads_ahead(interceptor: Interceptor) -> bool:
    return isinstance(interceptor, Transfer) and interceptor.store.on_disk


def test_a_key_is_all_that_a_failed_entry_could_leave(host, monkeypatch):
    """An entry whose second half could not be kept is not there at all."""
    header = recorded().header
    store, q = AttentionStore(header), torch.ones(header.shape())
    with monkeypatch.context() as patch:
        Allocations(patch, 3, MemoryError())
        with pytest.raises(MemoryError):
            store.put(Key(Evaluation(1.0), "cond", 0), q, q.clone())
    assert (len(store), store.evaluations) == (0, ())

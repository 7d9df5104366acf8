"""Several tools in one run, one tool in several runs, calls from several threads: each does what it does alone."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from faults.breaking import At, Raises, failing_backend
from synthetic_host import Outputs, SyntheticHost, same

from vdit_core.call import AttentionCall, Chain, Interceptor, TokenGrid
from vdit_core.recording.recorder import Recorder
from vdit_core.recording.store import AttentionStore, Key, StoreError
from vdit_core.recording.store.prefetch import Prefetch
from vdit_core.recording.store.writer import StoreWriter
from vdit_core.selection import Indices, LayerMask, Selection
from vdit_core.transfer import LiveTransfer, Transfer, TransferConfig, TransferError

CPU = torch.device("cpu")
SOURCE, TARGET = 1, 2
TIERS = ["RAM", "GPU", "disk"]


def contents(store: AttentionStore) -> dict[Any, torch.Tensor]:
    """All that a store holds, by entry and q or k."""
    entries = {key: store.get(key, CPU, torch.float32) for key in store._keys}
    return {(key, name): x for key, pair in entries.items() for name, x in zip("qk", pair, strict=True)}


def recorded_alone(recorder: Recorder, seed: int = SOURCE, **fields) -> AttentionStore:
    SyntheticHost(**fields).run(seed, recorder)
    return recorder.take()


PAIRS = [
    ("alike", {}, {}),
    ("exact and int8", {}, {"quantization": "int8"}),
    ("RAM and disk", {}, {"tier": "disk"}),
    ("both on disk", {"tier": "disk"}, {"tier": "disk"}),
    ("disk and GPU", {"tier": "disk", "quantization": "int8"}, {"tier": "GPU"}),
    ("other layers", {"selection": Selection(Indices("0"))}, {"selection": Selection(Indices("1-2"))}),
    ("other heads", {"selection": Selection(heads=Indices("0"))}, {"selection": Selection(heads=Indices("1"))}),
    ("other steps", {"selection": Selection(steps=Indices("0"))}, {"selection": Selection(steps=Indices("2"))}),
    ("other branches", {"selection": Selection(branches="cond")}, {"selection": Selection(branches="uncond")}),
    ("nothing and all", {"selection": Selection(Indices("none"))}, {"tier": "disk"}),
]  # fmt: skip


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize(("one", "other"), [pytest.param(*case, id=name) for name, *case in PAIRS])
def test_two_recorders_in_one_run_record_what_each_does_alone(host, disk, one, other, batched):
    options = [{"folder": disk} | given for given in (one, other)]
    alone = [recorded_alone(Recorder(**given), samples=2, batched=batched) for given in options]
    together = [Recorder(**given) for given in options]
    outputs = host(samples=2, batched=batched).run(SOURCE, *together)
    assert same(outputs, host(samples=2, batched=batched).run(SOURCE))
    for mine, recorder in zip(alone, together, strict=True):
        store = recorder.take()
        assert store.header == mine.header
        assert same(contents(store), contents(mine))


@pytest.mark.parametrize("quantization", ["none", "int8"])
@pytest.mark.parametrize("tier", TIERS)
def test_one_recorder_twice_in_a_run_is_one(host, disk, tier, quantization):
    recorder = Recorder(tier=tier, quantization=quantization, folder=disk)
    assert same(host().run(SOURCE, recorder, recorder), host().run(SOURCE))
    assert len(list(disk.iterdir())) == (tier == "disk")
    assert same(contents(recorder.take()), contents(recorded_alone(Recorder(quantization=quantization))))


@pytest.fixture
def slow_first_writes(monkeypatch) -> None:
    """An entry's first writing takes longer than its second, so that threads that race would mix them up."""
    seen, plain = set(), StoreWriter.write

    def write(writer, number, entry, starts):
        if (writer.path, number) not in seen:
            seen.add((writer.path, number))
            time.sleep(0.005)
        plain(writer, number, entry, starts)

    monkeypatch.setattr(StoreWriter, "write", write)


WHERES = [
    ("whole", TransferConfig()),
    ("half", TransferConfig(LayerMask("all:0.5"))),
    ("a layer", TransferConfig(LayerMask("1:0.25"))),
    ("a head", TransferConfig(heads=Indices("1"))),
    ("half of a head", TransferConfig(LayerMask("0-1:0.5"), Indices("0"))),
    ("a branch", TransferConfig(LayerMask("all:0.5"), branches="cond")),
]


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("where", [pytest.param(where, id=name) for name, where in WHERES])
def test_a_recorder_behind_a_transfer_sees_what_was_put_in(host, disk, slow_first_writes, tier, where):
    """A blend proceeds twice: what comes last is what was put in, on disk too. One before it sees the target's own."""
    source = recorded_alone(Recorder())
    before, behind = (Recorder(tier=tier, folder=disk) for _ in range(2))
    plain = host().run(TARGET, Transfer(source, where))
    assert same(host().run(TARGET, before, Transfer(source, where), behind), plain)
    own = contents(recorded_alone(Recorder(), TARGET))
    assert same(contents(before.take()), own)
    of_source, found = contents(source), contents(behind.take())
    run = host().describe()
    places, heads = where.resolve(run), where.heads.resolve(2, "head")
    for (key, name), x in found.items():
        expected = own[key, name].clone()
        if key.layer in places.strengths and key.branch in places.branches:
            expected[:, list(heads)] = of_source[key, name][:, list(heads)]
        assert torch.equal(x, expected)


@pytest.mark.parametrize("tier", TIERS)
def test_a_recorder_behind_a_live_transfer_sees_the_sources_maps(host, disk, tier):
    recorder = Recorder(tier=tier, folder=disk)
    host(samples=3).run(TARGET, LiveTransfer(), recorder)
    own = contents(recorded_alone(Recorder(), TARGET, samples=3))
    for place, x in contents(recorder.take()).items():
        assert torch.equal(x, own[place][:1].expand_as(x))


#: Sources of a transfer: how they are made.
SOURCES = {
    "RAM": lambda folder: recorded_alone(Recorder()),
    "int8": lambda folder: recorded_alone(Recorder(quantization="int8")),
    "disk": lambda folder: recorded_alone(Recorder(tier="disk", folder=folder)),
    "file": lambda folder: saved(recorded_alone(Recorder()), folder),
}
all_sources = pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())


def saved(store: AttentionStore, folder) -> AttentionStore:
    store.save(folder / "source.safetensors")
    return AttentionStore.load(folder / "source.safetensors")


FORMER_RUNS = [
    ("a whole one", {}, {}, None),
    ("of two samples", {"samples": 2}, {}, None),
    ("all in one call", {"samples": 2, "batched": True}, {}, None),
    ("of half quantization", {"dtype": torch.float16}, {}, None),
    ("on another grid", {"grid": TokenGrid(1, 3, 3)}, {}, (TransferError, "2 x 3 x 3 tokens. Target: 1 x 3 x 3")),
    ("of other steps", {"sigmas": (1.0, 0.3)}, {}, (TransferError, "Source: 3 steps, .*Target: 2 steps")),
    ("broken off at once", {}, {"backend": failing_backend(KeyboardInterrupt(), 0)}, (KeyboardInterrupt, "")),
    ("broken off in its midst", {}, {"backend": failing_backend(KeyboardInterrupt(), 8)}, (KeyboardInterrupt, "")),
    ("broken off at its end", {}, {"backend": failing_backend(ValueError("late"), 17)}, (ValueError, "late")),
    ("by a sampler that looks between", {}, {"evaluations": (1.0, 0.9, 0.8, 0.5)}, None),
    ("that skipped steps", {}, {"evaluations": (1.0, 0.5)}, None),
]


@all_sources
@pytest.mark.parametrize(("fields", "options", "breaks"), [pytest.param(*case, id=name) for name, *case in FORMER_RUNS])
def test_a_transfer_forgets_its_former_run(host, disk, source, fields, options, breaks):
    transfer = Transfer(source(disk), TransferConfig(LayerMask("0-1, 2:0.5")))
    if (backend := options.get("backend")) is not None:
        backend.calls.clear()
    if breaks is None:
        host(**fields).run(TARGET, transfer, **options)
    else:
        with pytest.raises(breaks[0], match=breaks[1] or None):
            host(**fields).run(TARGET, transfer, **options)
    fresh = Transfer(transfer.store, transfer.where)
    wanted = host().run(TARGET, fresh)
    assert same(host().run(TARGET, transfer), wanted)
    assert str(transfer.report) == str(fresh.report) == "replaced 18 of 18 calls"


@all_sources
def test_two_transfers_share_a_store(host, disk, source):
    store = source(disk)
    parts = [Transfer(store, TransferConfig(LayerMask(layers))) for layers in ("0", "1-2")]
    assert same(host().run(TARGET, *parts), host().run(TARGET, Transfer(store)))
    assert [transfer.report.replaced for transfer in parts] == [6, 12]


@all_sources
def test_one_transfer_twice_in_a_run_is_one(host, disk, source):
    transfer = Transfer(source(disk))
    assert same(host().run(TARGET, transfer, transfer), host().run(TARGET, Transfer(transfer.store)))
    assert transfer.report.replaced == 18


# Calls from several threads at once: a host may compute on several GPUs.


def run_in_threads(host: SyntheticHost, seed: int, *interceptors: Interceptor, dtypes=(None, None)) -> Outputs:
    """Each branch's calls come from a thread of their own, with no regard for the other's; dtypes: one for each."""
    chain, outputs, completed = Chain(interceptors), {}, False

    def call(branch: str, dtype: torch.dtype | None) -> None:
        for site in (site for site in host.sites() if site.rows[0].branch == branch):
            tensors = (x if dtype is None else x.to(dtype) for x in host.tensors(seed, site))
            output = chain(AttentionCall(site, *tensors, F.scaled_dot_product_attention))
            for row, value in zip(site.rows, output, strict=True):
                outputs[site.layer, site.sigma, site.visit, row.branch, row.sample] = value

    chain.begin(host.describe())
    try:
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(call, *work) for work in zip(host.branches, dtypes, strict=True)]:
                done.result()
        completed = True
    finally:
        chain.end(completed)
    return outputs


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


CROWDS = {
    "recorder": lambda at: [Recorder()],
    "recorder, int8": lambda at: [Recorder(quantization="int8")],
    "recorder on disk": lambda at: [Recorder(tier="disk", folder=at)],
    "two recorders": lambda at: [Recorder(), Recorder(tier="disk", folder=at)],
    "transfer": lambda at: [Transfer(SOURCES["RAM"](at))],
    "transfer of a part": lambda at: [
        Transfer(SOURCES["int8"](at), TransferConfig(LayerMask("0, 2:0.5"), Indices("1")))
    ],
    "transfer from disk": lambda at: [Transfer(SOURCES["disk"](at))],
    "transfer from a file": lambda at: [Transfer(SOURCES["file"](at), TransferConfig(LayerMask("1-2:0.5")))],
    "transfer, recorded": lambda at: [Transfer(SOURCES["disk"](at)), Recorder(tier="disk", folder=at)],
    "live transfer": lambda at: [LiveTransfer()],
    "live transfer, recorded": lambda at: [Recorder(), LiveTransfer(), Recorder(tier="disk", folder=at)],
}


@pytest.mark.parametrize("make", CROWDS.values(), ids=CROWDS.keys())
def test_threads_that_call_at_once_get_what_one_gets(host, disk, hasty, make):
    def records(interceptors: list[Interceptor]) -> list:
        return [contents(one.take()) for one in interceptors if isinstance(one, Recorder)]

    there = host(samples=2)
    alone = make(disk)
    wanted = there.run(TARGET, *alone)
    in_order = records(alone)
    crowd = make(disk)
    for _ in range(3):
        assert same(run_in_threads(there, TARGET, *crowd), wanted)
        for found, expected in zip(records(crowd), in_order, strict=True):
            assert same(found, expected)


@all_sources
def test_threads_of_other_dtypes_get_their_own(host, disk, hasty, source):
    """As threads of other GPUs do: what is read for one is not handed to the other."""
    transfer = Transfer(source(disk))
    mixed = run_in_threads(host(), TARGET, transfer, dtypes=(torch.float32, torch.float64))
    plain = host().run(TARGET, transfer)
    for place, value in mixed.items():
        assert value.dtype == (torch.float32 if place[3] == "cond" else torch.float64)
        torch.testing.assert_close(value.float(), plain[place], atol=1e-5, rtol=1e-5)


def test_a_thread_that_fails_ends_the_run(host, disk, hasty):
    transfer = Transfer(SOURCES["disk"](disk), TransferConfig(branches="cond"))
    with pytest.raises(ValueError, match="from a thread"):
        run_in_threads(host(), TARGET, Raises(ValueError("from a thread"), "before", call=9), transfer)
    assert transfer.report.replaced <= 9


# Stores that go while they are used.


@all_sources
@pytest.mark.parametrize("call", [0, 1, 9, 17])
def test_a_store_that_is_dropped_in_mid_run_ends_it(host, disk, source, call):
    transfer = Transfer(source(disk))
    with pytest.raises((StoreError, FileNotFoundError), match=r"was dropped while it was in use|No such file"):
        host().run(TARGET, At(call, transfer.store.drop), transfer)


@pytest.mark.parametrize("call", [0, 1, 9, 17])
def test_a_recorder_that_records_anew_takes_nothing_from_a_transfer(host, disk, call):
    """The store that a transfer still reads stays until that is done."""
    recorder = Recorder(tier="disk", folder=disk)
    host().run(SOURCE, recorder)
    transfer = Transfer(recorder.store)
    wanted = host().run(TARGET, Transfer(recorder.store))
    assert same(host().run(TARGET, At(call, lambda: host().run(3, recorder)), transfer), wanted)
    assert len(list(disk.iterdir())) == 2
    del transfer
    assert len(list(disk.iterdir())) == 1


@pytest.mark.parametrize("slow", ["reading", "not reading"])
def test_a_transfer_that_goes_while_it_reads_ahead_leaves_nothing(host, disk, monkeypatch, slow):
    recorder, plain, begun = Recorder(tier="disk", folder=disk), Prefetch._fetch, threading.Event()
    host().run(SOURCE, recorder)
    transfer = Transfer(recorder.take())

    def fetch(ahead, key, *more):
        if threading.current_thread() is not threading.main_thread() and slow == "reading":
            begun.set()
            time.sleep(0.05)
        return plain(ahead, key, *more)

    def interrupt() -> None:
        begun.wait(1 if slow == "reading" else 0)
        raise KeyboardInterrupt

    monkeypatch.setattr(Prefetch, "_fetch", fetch)
    with pytest.raises(KeyboardInterrupt):
        host().run(TARGET, At(4, interrupt), transfer)
    del transfer
    gc.collect()
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize("tier", TIERS)
def test_a_store_and_its_files_go_with_their_last_user(host, disk, tier):
    recorder = Recorder(tier=tier, folder=disk)
    host().run(SOURCE, recorder)
    store = recorder.take()
    kept = [store.get(key, CPU, torch.float32) for key in store._keys]
    transfer = Transfer(store)
    host().run(TARGET, transfer)
    del store, recorder
    assert len(list(disk.iterdir())) == (tier == "disk")
    del transfer
    assert list(disk.iterdir()) == []
    assert all(q.isfinite().all() and k.isfinite().all() for q, k in kept)


def test_what_is_read_ahead_wrongly_is_forgotten(host, disk):
    store = SOURCES["disk"](disk)
    ahead, keys = Prefetch(store, CPU, torch.float32), list(store._keys)
    nowhere = Key(keys[0].evaluation, "nowhere", 0)
    for expected, asked in ((keys[:4], keys[4]), (keys[4:9], keys[8]), ([nowhere], keys[0]), ([nowhere], keys[1])):
        ahead.expect(expected)
        found = ahead.get(asked)
        assert all(torch.equal(x, y) for x, y in zip(found, store.get(asked, CPU, torch.float32), strict=True))
    ahead.expect([nowhere])
    with pytest.raises(StoreError, match=r"of branch 'nowhere' at noise level .* was not recorded"):
        ahead.get(nowhere)
    ahead.close()


def test_threads_may_ask_and_expect_at_once(disk, hasty):
    store = SOURCES["disk"](disk)
    ahead, keys = Prefetch(store, CPU, torch.float32), list(store._keys)

    def ask(first: int) -> None:
        for n in range(first, first + 150):
            ahead.expect([keys[(n + i) % len(keys)] for i in range(6)])
            key = keys[n % len(keys)]
            assert all(torch.equal(x, y) for x, y in zip(ahead.get(key), plain[key], strict=True))

    plain = {key: store.get(key, CPU, torch.float32) for key in keys}
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(ask, first) for first in range(4)]:
            done.result()
    ahead.close()

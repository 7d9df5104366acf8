"""Where recordings are kept: every tier gives the same store, and leaves nothing behind."""

from __future__ import annotations

import gc
import threading

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vdit_core.call import ModelSignature, TokenGrid
from vdit_core.recording.budget import MemoryBudget, RecordingTooLarge
from vdit_core.recording.recorder import Recorder
from vdit_core.recording.store import AttentionStore, Evaluation, Header, Key
from vdit_core.recording.store.async_writer import AsyncWriter
from vdit_core.recording.store.prefetch import Prefetch
from vdit_core.recording.store.storage import Folder, weight
from vdit_core.recording.store.writer import StoreWriter
from vdit_core.selection import Indices, LayerMask, Selection
from vdit_core.transfer import Transfer, TransferConfig

CPU = torch.device("cpu")
TIERS = ["RAM", "GPU", "disk"] + ["pinned RAM"] * torch.cuda.is_available()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("vdit")]


def all_of(store: AttentionStore) -> dict[Key, tuple[torch.Tensor, torch.Tensor]]:
    keys = [Key(e, b, i) for e in store.evaluations for b in store.branches for i in store.layers]
    return {key: store.get(key, CPU, torch.float32) for key in keys if key in store}


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("quantization", ["none", "int8"])
@pytest.mark.parametrize("tier", TIERS)
def test_every_tier_keeps_the_same(host, tmp_path, tier, quantization, batched):
    selection = Selection(Indices("0, 2"), Indices("1"), Indices("0-1"))
    plain, other = Recorder(selection, quantization), Recorder(selection, quantization, tier, folder=tmp_path)
    for recorder in (plain, other):
        host(batched=batched, samples=2).run(1, recorder)
    assert other.store.summary() == plain.store.summary()
    expected, found = all_of(plain.store), all_of(other.store)
    assert expected.keys() == found.keys()
    assert len(found) == 8
    for key, pair in expected.items():
        assert all(torch.equal(x, y) for x, y in zip(pair, found[key], strict=True))
    assert threads() == []


@pytest.mark.parametrize("branches", ["all", "cond"])
@pytest.mark.parametrize("layers", ["all", "0, 2:0.5", "1"])
@pytest.mark.parametrize("batched", [False, True])
def test_a_transfer_from_disk_is_one_from_ram(host, tmp_path, layers, batched, branches):
    """Prefetched or not, in whatever order: the same numbers; and again from a saved file."""
    recorders = Recorder(), Recorder(tier="disk", folder=tmp_path / "rec")
    for recorder in recorders:
        host(batched=batched).run(1, recorder)
    recorders[0].store.save(tmp_path / "a.safetensors")
    stores = [recorder.store for recorder in recorders] + [AttentionStore.load(tmp_path / "a.safetensors")]
    where = TransferConfig(LayerMask(layers), branches=branches)
    first, *rest = (host(batched=batched).run(2, Transfer(store, where)) for store in stores)
    for outputs in rest:
        assert first.keys() == outputs.keys()
        assert all(torch.equal(output, outputs[place]) for place, output in first.items())
    assert threads() == []


@pytest.mark.parametrize(("batched", "unforeseen"), [(True, 2), (False, 1)])
def test_what_comes_next_is_read_ahead(host, tmp_path, monkeypatch, batched, unforeseen):
    """All but the first call's, which has two branches if they come together."""
    recorder, missed = Recorder(tier="disk", folder=tmp_path), []
    host(batched=batched).run(1, recorder)
    plain = Prefetch.get
    monkeypatch.setattr(Prefetch, "get", lambda a, key: (key in a._coming or missed.append(key), plain(a, key))[1])
    host(batched=batched).run(2, Transfer(recorder.store, TransferConfig(LayerMask("0, 2"))))
    assert len(missed) == unforeseen


def test_files_go_with_their_store(host, tmp_path):
    recorder = Recorder(tier="disk", folder=tmp_path)
    host().run(1, recorder)
    (folder,) = tmp_path.iterdir()
    assert [file.name for file in sorted(folder.iterdir())] == [f"{n:04}.safetensors" for n in range(3)]
    one = AttentionStore.load(folder / "0001.safetensors")
    assert one.evaluations == recorder.store.evaluations[1:2]
    assert len(one) == 6
    host(layers=1).run(1, recorder)  # a further run starts a new store
    (folder,) = tmp_path.iterdir()
    del recorder, one
    gc.collect()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at", range(18))
@pytest.mark.parametrize("tier", TIERS)
def test_a_run_that_breaks_off_leaves_nothing(host, tmp_path, tier, at):
    calls = []

    def backend(q, k, v):
        calls.append(1)
        if len(calls) > at:
            raise KeyboardInterrupt
        return v

    recorder = Recorder(tier=tier, folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        host().run(1, recorder, backend=backend)
    assert list(tmp_path.iterdir()) == []
    assert threads() == []
    with pytest.raises(RuntimeError, match="no recording"):
        _ = recorder.store
    host().run(1, recorder)
    assert len(recorder.store) == 18


@pytest.mark.parametrize("at", [0, 5, 17])
def test_a_disk_that_fails_ends_the_run_with_its_reason(host, tmp_path, monkeypatch, at):
    written = []
    plain = StoreWriter.write

    def write(writer, number, entry, starts):
        written.append(1)
        if len(written) > at:
            raise OSError(28, "No space left on device while recording", str(writer.path))
        plain(writer, number, entry, starts)

    monkeypatch.setattr(StoreWriter, "write", write)
    recorder = Recorder(tier="disk", folder=tmp_path)
    with pytest.raises(OSError, match=r"No space left on device while recording: .*000\d\.safetensors"):
        host().run(1, recorder)
    assert list(tmp_path.iterdir()) == []
    assert threads() == []


def test_a_tier_that_is_not_there_is_refused(host):
    with pytest.raises(ValueError, match="'tape' is not one of RAM, pinned RAM, GPU, disk"):
        Recorder(tier="tape")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="for an NVIDIA GPU, and there is none; choose RAM"):
            host().run(1, Recorder(tier="pinned RAM"))


def header(tokens: int = 32_760, quantization: str = "none") -> Header:
    return Header(
        ModelSignature(30, 12, 128), TokenGrid(1, 1, tokens), (1.0,), tuple(range(12)), 1, quantization, "bfloat16"
    )


def test_what_an_entry_weighs():
    """12 x 32,760 x 128 numbers twice; page-locked RAM comes in pages of 4,096 bytes."""
    assert weight("RAM", header()) == weight("pinned RAM", header()) == 2 * 2 * 12 * 32_760 * 128
    assert weight("pinned RAM", header(1)) == 2 * 4096
    assert weight("disk", header(quantization="int8")) == 2 * 12 * 32_760 * (128 + 4)


def test_what_would_fit_is_told_and_fits(host):
    """Each piece of advice, taken, makes a recording that goes through."""
    call = 2 * 2 * 18 * 8 * 4
    free = {"RAM": 14 * call, "disk": 10**6 * call}
    budget = MemoryBudget(15 * call, lambda tier, wanted: free[tier])
    with pytest.raises(RecordingTooLarge) as caught:
        host(layers=6).run(1, Recorder(budget=budget))
    told = str(caught.value)
    assert "6 layers x 3 steps x 2 branches = 36 calls of" in told
    assert "; 14 fit. " in told
    assert "2 of these layers, for example 0-5/3" in told
    assert "1 of these steps" in told
    assert "int8" in told  # 8 + 4 bytes a token instead of 32
    assert f"the disk ({free['disk'] / 2**30:.1f} GiB free)" in told
    host(layers=6).run(1, Recorder(Selection(Indices("0-5/3")), budget=budget))
    host(layers=6).run(1, Recorder(Selection(steps=Indices("0")), budget=budget))
    host(layers=6).run(1, Recorder(quantization="int8", budget=MemoryBudget(14 * call)))


def test_room_is_asked_for_what_is_wanted(host):
    asked = []
    host().run(1, Recorder(budget=MemoryBudget(free=lambda tier, wanted: asked.append((tier, wanted)) or 2**30)))
    assert asked == [("RAM", 18 * 2 * 2 * 18 * 8 * 4)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_entries_come_back_whatever_the_order(tmp_path, data):
    calls = [(branch, layer) for branch in ("cond", "uncond") for layer in range(3)]
    keys = [Key(Evaluation(sigma), *call) for sigma in (1.0, 0.5) for call in calls]
    chosen = data.draw(st.lists(st.sampled_from(keys), unique=True, min_size=1))
    small = Header(ModelSignature(3, 1, 4), TokenGrid(1, 1, 2), (1.0, 0.5), (0,), 1, "none", "float32")
    store = AttentionStore(small, Folder(tmp_path, small, calls))
    entries = {key: torch.randn(2, *small.shape()) for key in chosen}
    for key, (q, k) in entries.items():
        store.put(key, q, k)
    store.finish()
    asked = data.draw(st.permutations(chosen))
    ahead = Prefetch(store, CPU, torch.float32)
    for n, key in enumerate(asked):
        found = ahead.get(key)
        assert all(torch.equal(x, y) for x, y in zip(found, entries[key], strict=True))
        ahead.expect(asked[n + data.draw(st.integers(1, 3)) :][:2])  # right or wrong
    ahead.close()
    store.drop()
    assert list(tmp_path.iterdir()) == []


def test_whoever_sends_waits_while_much_is_under_way():
    """RAM does not fill up where a disk is slow."""
    gate, delivered, sent = threading.Event(), [], []

    def deliver(to, entry):
        gate.wait(10)
        delivered.append(to)

    writing = AsyncWriter(deliver, waiting=2)

    def send():
        for n in range(8):
            writing.send(n, {"x": torch.zeros(1)})
            sent.append(n)

    sender = threading.Thread(target=send)
    sender.start()
    sender.join(0.3)
    assert len(sent) <= 3  # one with `deliver`, two that wait
    gate.set()
    sender.join(10)
    writing.close()
    assert delivered == list(range(8))

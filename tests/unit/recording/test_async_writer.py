"""Entries on their way from a GPU, on a machine without one: a stand-in says which tensors lie on it, and copies them
when the test lets it."""

from __future__ import annotations

import signal
import threading
import time
import weakref

import pytest
import torch

from vdit_core.call import ModelSignature, TokenGrid
from vdit_core.recording.store import AttentionStore, Evaluation, Header, Key, async_writer, pieces
from vdit_core.recording.store.async_writer import AsyncWriter
from vdit_core.recording.store.departure import Departure
from vdit_core.recording.store.pieces import as_bytes, cut, nbytes
from vdit_core.recording.store.storage import Folder, Memory

from .page_locking import Copy, System, lent_after

LAYERS, TOKENS = 6, 50
CPU = torch.device("cpu")


class Gpu:
    """A GPU whose copies take effect when it is let go on: until then what lies on it may not be read."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.going = threading.Event()
        self.going.set()
        self.fails: str | None = None
        patch.setattr(async_writer, "on_gpu", lambda entry: True)
        patch.setattr(async_writer, "reached", lambda entry: "reached")

        def copy(departure, parts, into, after):
            assert after == "reached"
            assert self.going.wait(10)
            if self.fails is not None:
                raise RuntimeError(self.fails)
            for name, part in parts.items():
                into[name].copy_(part)

        patch.setattr(Departure, "copy", copy)
        patch.setattr(Departure, "packed", lambda departure, entry, pack, after: self.going.wait(10) and pack(entry))
        patch.setattr("vdit_core.recording.store.departure.torch.cuda.stream", lambda stream: threading.Lock())
        patch.setattr(Departure, "_stream", lambda departure, entry: None)


@pytest.fixture
def gpu(monkeypatch) -> Gpu:
    return Gpu(monkeypatch)


@pytest.fixture
def system() -> System:
    return System()


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch) -> None:
    monkeypatch.setattr(pieces, "PIECE", 1000)


HEADER = {
    quantization: Header(
        ModelSignature(LAYERS, 2, 8), TokenGrid(1, 5, 10), (1.0, 0.5), (0, 1), 1, quantization, "bfloat16"
    )
    for quantization in ("none", "int8")
}
CALLS = [("cond", layer) for layer in range(LAYERS)]
KEYS = [Key(Evaluation(sigma), *call) for sigma in (1.0, 0.5) for call in CALLS]


class ToGpu(Memory):
    """Takes what lies in RAM for a GPU's."""

    def put(self, key, entry, pack=None):
        self._writing.send(key, entry, pack)


def new_storage(tier: str, header: Header, pool, folder):
    if tier != "disk":
        return ToGpu(tier, header, len(KEYS), pool)
    storage = Folder(folder, header, CALLS)
    storage._writing._departure = lambda: Departure(pool)
    return storage


def tensors(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.randn(2, 1, 2, TOKENS, 8, generator=torch.Generator().manual_seed(seed)).bfloat16())


def test_pieces_hold_every_byte_once():
    for most in (1, 7, 100, 64, 10**6):
        entry = {"a": torch.arange(33.0), "b": torch.arange(50, dtype=torch.int8), "c": torch.zeros(0)}
        found = {name: torch.zeros(part.numel() * part.itemsize, dtype=torch.uint8) for name, part in entry.items()}
        for piece in cut(entry, most):
            assert nbytes(piece.parts) <= most
            for name, part in piece.parts.items():
                data, start = as_bytes(part), piece.starts.get(name, 0)
                assert not found[name][start : start + len(data)].any() or not data.any()
                found[name][start : start + len(data)] = data
        assert all(torch.equal(found[name], as_bytes(part)) for name, part in entry.items())


@pytest.mark.parametrize("most", [100, 1000, 10**6])
@pytest.mark.parametrize("packing", ["at once", "on the way"])
@pytest.mark.parametrize("quantization", ["none", "int8"])
@pytest.mark.parametrize("tier", ["RAM", "pinned RAM", "disk"])
def test_what_comes_back_is_what_went(tmp_path, gpu, system, monkeypatch, tier, quantization, packing, most):
    monkeypatch.setattr(pieces, "PIECE", most)
    pool = system.pool()
    store = AttentionStore(HEADER[quantization], new_storage(tier, HEADER[quantization], pool, tmp_path))
    plain = AttentionStore(HEADER[quantization])
    for n, key in enumerate(KEYS):
        q, k = tensors(n)
        plain.put(key, q, k)
        if packing == "at once":
            store.put(key, q, k)
        else:
            pack = lambda entry, codec=quantization: plain_pack(codec, entry)  # noqa: E731
            store._storage.put(key, {".q": q.clone(), ".k": k.clone()}, pack)
            store._list(key)
        q.zero_(), k.zero_()
    store.finish()
    for key in KEYS:
        for x, y in zip(store.get(key, CPU, torch.bfloat16), plain.get(key, CPU, torch.bfloat16), strict=True):
            assert torch.equal(x, y)
    del x, y
    staged = 0 if tier == "pinned RAM" else 4 * 8192
    assert system.most <= staged + (len(KEYS) * 8192 if tier == "pinned RAM" else 0)
    store.drop()
    pool.trim()
    assert system.locked == {}
    assert list(tmp_path.iterdir()) == []


def plain_pack(quantization, entry):
    from vdit_core.recording.store.attention_store import _packed

    return _packed(quantization, entry)


@pytest.mark.parametrize("tier", ["RAM", "pinned RAM", "disk"])
def test_what_comes_twice_stays_as_it_came_last(tmp_path, gpu, system, tier):
    store = AttentionStore(HEADER["none"], new_storage(tier, HEADER["none"], system.pool(), tmp_path))
    for n in range(40):
        store.put(KEYS[n % 3], *tensors(n))
    store.finish()
    for n in (37, 38, 39):
        assert torch.equal(store.get(KEYS[n % 3], CPU, torch.bfloat16)[0], tensors(n)[0])


def test_the_caller_waits_for_room_on_the_gpu_and_not_before(gpu, system, monkeypatch):
    """Three entries fit; they leave when the GPU gets to them."""
    entry_bytes = HEADER["none"].entry_bytes()
    monkeypatch.setattr(async_writer, "ON_GPU", 3 * entry_bytes)
    storage = ToGpu("RAM", HEADER["none"], 0, system.pool())
    gpu.going.clear()
    sent = []

    def record() -> None:
        for n, key in enumerate(KEYS):
            storage.make_room(entry_bytes)
            storage.put(key, dict(zip((".q", ".k"), tensors(n), strict=True)))
            sent.append(n)

    thread = threading.Thread(target=record)
    thread.start()
    time.sleep(0.2)
    assert sent == [0, 1, 2]
    gpu.going.set()
    thread.join(10)
    storage.finish()
    assert len(storage._entries) == len(KEYS)


def test_a_slow_disk_does_not_keep_what_has_left_the_gpu(gpu, monkeypatch, system):
    monkeypatch.setattr(async_writer, "ON_GPU", 10)
    gate, started = threading.Event(), time.monotonic()
    writing = AsyncWriter(lambda to, piece: gate.wait(10), 2, departure=lambda: Departure(system.pool()))
    for n in range(2):
        writing.make_room(100)  # a third would wait for one of two threads
        writing.send(n, {"x": torch.zeros(100)})
    assert time.monotonic() - started < 5
    gate.set()
    writing.close()


def test_an_entry_larger_than_the_room_goes_alone(gpu, system, monkeypatch):
    monkeypatch.setattr(async_writer, "ON_GPU", 10)
    storage = ToGpu("RAM", HEADER["none"], 0, system.pool())
    for n, key in enumerate(KEYS):
        storage.make_room(HEADER["none"].entry_bytes())
        storage.put(key, dict(zip((".q", ".k"), tensors(n), strict=True)))
    storage.finish()
    assert len(storage._entries) == len(KEYS)


ENDS = ["dropped", "dropped under way", "forgotten under way", "finished and forgotten", "failed", "failed, forgotten"]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("tier", ["RAM", "pinned RAM", "disk"])
def test_nothing_is_left(tmp_path, gpu, system, no_collector, tier, end):
    """No memory, folder, thread or lock, whatever is under way when the last reference goes."""
    pool = system.pool()
    storage = new_storage(tier, HEADER["none"], pool, tmp_path)
    given, raised = [], None
    if "failed" in end:
        gpu.fails = "CUDA error: an illegal memory access"
    if "under way" in end:
        gpu.going.clear()
    try:
        for n, key in enumerate(KEYS):
            entry = dict(zip((".q", ".k"), (x.clone() for x in tensors(n)), strict=True))
            given += [weakref.ref(part) for part in entry.values()]
            storage.put(key, entry)
        if "under way" not in end:
            storage.finish()
    except RuntimeError as error:
        raised = str(error)
    assert ("illegal memory access" in (raised or "")) == ("failed" in end)
    del entry
    threading.Timer(0.05, gpu.going.set).start()
    if "forgotten" not in end:
        storage.drop()
        assert tier == "disk" or not storage._entries
    del storage
    assert [each() for each in given if each() is not None] == []
    assert list(tmp_path.iterdir()) == []
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("vdit")] == []
    assert pool.held == pool.idle
    pool.trim()
    assert system.locked == {}


def test_an_error_is_raised_once_and_then_the_recording_is_broken():
    def deliver(to, piece):
        raise OSError(28, "No space left on device", "file")

    writing = AsyncWriter(deliver)

    def send() -> None:
        for n in range(10):
            writing.send(n, {"x": torch.zeros(1)})
            time.sleep(0.01)

    with pytest.raises(OSError, match="No space left on device: 'file'"):
        send()
    with pytest.raises(RuntimeError, match="abandoned"):
        writing.close()
    with pytest.raises(RuntimeError, match="abandoned"):
        writing.send(11, {"x": torch.zeros(1)})


def test_whoever_waits_for_room_is_woken_by_an_error(gpu, system, monkeypatch):
    monkeypatch.setattr(async_writer, "ON_GPU", 10)
    gpu.going.clear()
    gpu.fails = "lost the GPU"
    storage = ToGpu("RAM", HEADER["none"], 0, system.pool())
    storage.put(KEYS[0], dict(zip((".q", ".k"), tensors(0), strict=True)))
    threading.Timer(0.1, gpu.going.set).start()
    with pytest.raises(RuntimeError, match="lost the GPU"):
        storage.make_room(100)
    storage.drop()


def test_nothing_is_delivered_once_a_recording_is_abandoned(gpu, system, monkeypatch):
    """Not even the rest of an entry that was about to be cut."""
    monkeypatch.setattr(pieces, "PIECE", 100)
    cutting, abandoned, delivered = threading.Event(), threading.Event(), []

    def slow_cut(entry):
        cutting.set()
        abandoned.wait(10)
        return cut(entry)

    monkeypatch.setattr(async_writer, "cut", slow_cut)
    writing = AsyncWriter(lambda to, piece: delivered.append(to), 2, departure=lambda: Departure(system.pool()))
    writing.send(0, {"x": torch.zeros(1000)})
    assert cutting.wait(10)
    threading.Timer(0.1, abandoned.set).start()
    writing.abandon()
    assert len(delivered) <= 1


def test_an_interrupt_while_the_caller_waits_leaves_nothing(gpu, system, monkeypatch):
    monkeypatch.setattr(async_writer, "ON_GPU", 10)
    gpu.going.clear()
    storage = ToGpu("RAM", HEADER["none"], 0, system.pool())
    storage.put(KEYS[0], dict(zip((".q", ".k"), tensors(0), strict=True)))
    main = threading.main_thread().ident
    own = signal.signal(signal.SIGINT, signal.default_int_handler)  # another library may have taken it over
    threading.Timer(0.2, signal.pthread_kill, [main, signal.SIGINT]).start()
    at_last = threading.Timer(8, gpu.going.set)  # if the wait cannot be interrupted, the test fails instead of hanging
    at_last.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            storage.make_room(100)
    finally:
        signal.signal(signal.SIGINT, own)
        at_last.cancel()
        gpu.going.set()
        storage.drop()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("vdit")] == []


def test_buffers_are_used_from_run_to_run(gpu, system):
    pool = system.pool()
    for _ in range(4):
        storage = ToGpu("pinned RAM", HEADER["none"], len(KEYS), pool)
        for n, key in enumerate(KEYS):
            storage.put(key, dict(zip((".q", ".k"), tensors(n), strict=True)))
        storage.finish()
        del storage
    assert system.locks == len(KEYS)


def test_a_tensor_that_was_handed_out_outlives_its_store(gpu, system):
    pool = system.pool()
    store = AttentionStore(HEADER["none"], ToGpu("pinned RAM", HEADER["none"], len(KEYS), pool))
    for n, key in enumerate(KEYS):
        store.put(key, *tensors(n))
    store.finish()
    q, k = store.get(KEYS[3], CPU, torch.bfloat16)
    store.drop()
    others = [pool.take(8192) for _ in range(len(KEYS))]
    for other in others:
        other.zero_()
    assert torch.equal(q, tensors(3)[0])
    assert torch.equal(k, tensors(3)[1])


def test_a_copy_to_a_gpu_that_is_under_way_keeps_its_buffer(gpu, system):
    pool, copy = system.pool(), Copy()
    storage = ToGpu("pinned RAM", HEADER["none"], 0, pool)
    storage.put(KEYS[0], dict(zip((".q", ".k"), tensors(0), strict=True)))
    storage.finish()
    address = storage.get(KEYS[0])[".q"].data_ptr()
    pool.in_use(storage.get(KEYS[0]).values(), copy)
    storage.drop()
    assert lent_after(copy, pool, pool.idle).data_ptr() == address

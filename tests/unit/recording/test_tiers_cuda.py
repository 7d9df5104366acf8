"""Recordings that leave a GPU and come back to it, beside what it computes."""

from __future__ import annotations

import pytest
import torch

from vdit_core.attention.triton import triton_works
from vdit_core.call import ModelSignature, TokenGrid
from vdit_core.recording.quantization import decode, encode
from vdit_core.recording.store import AttentionStore, Evaluation, Header, Key, async_writer, pieces
from vdit_core.recording.store.page_locked import POOL, lock, unlock
from vdit_core.recording.store.prefetch import Prefetch
from vdit_core.recording.store.ram import mapped, pages, room
from vdit_core.recording.store.storage import TIERS, new_storage

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

LAYERS, TOKENS = 12, 4096
CALLS = [("cond", layer) for layer in range(LAYERS)]
KEYS = [Key(Evaluation(sigma), *call) for sigma in (1.0, 0.5) for call in CALLS]


def new_store(tier: str, quantization: str, folder) -> AttentionStore:
    header = Header(
        ModelSignature(LAYERS, 4, 128), TokenGrid(4, 32, 32), (1.0, 0.5), (0, 1, 2, 3), 1, quantization, "bfloat16"
    )
    return AttentionStore(header, new_storage(tier, header, CALLS, folder, len(KEYS)))


def busy() -> torch.Tensor:
    """Something for the GPU to do for a while, so that copies that do not wait for one another would be seen."""
    x = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    for _ in range(8):
        x = x @ x / 64
    return x


def filled(store: AttentionStore) -> dict[Key, tuple[torch.Tensor, torch.Tensor]]:
    """Puts entries that are computed on the spot, and overwrites what it lent at once."""
    expected = {}
    for n, key in enumerate(KEYS):
        busy()
        generator = torch.Generator("cuda").manual_seed(n)
        q, k = torch.randn(2, *store.header.shape(), generator=generator, device="cuda").bfloat16()
        expected[key] = q.cpu(), k.cpu()
        busy()
        store.put(key, q, k)
        q.zero_(), k.zero_()
    store.finish()
    return expected


@pytest.mark.parametrize("quantization", ["none", "int8"])
@pytest.mark.parametrize("tier", TIERS)
def test_what_comes_back_is_what_went(tmp_path, tier, quantization):
    store = new_store(tier, quantization, tmp_path)
    expected = filled(store)
    device = torch.device("cuda", torch.cuda.current_device())
    ahead, found = Prefetch(store, device, torch.bfloat16), {}
    for n, key in enumerate(KEYS):
        q, k = ahead.get(key)
        ahead.expect(KEYS[n + 1 : n + 2])
        busy()
        found[key] = q.float().cpu(), k.float().cpu()  # used behind the busy stream, while the next is fetched
        del q, k
    ahead.close()
    for key, pair in expected.items():
        for x, y in zip(pair, found[key], strict=True):
            assert y.device.type == "cpu"
            if quantization == "none":
                assert torch.equal(x.float(), y)
            else:
                assert (x.float() - y).norm() / x.float().norm() < 0.01


@pytest.mark.parametrize("tier", ["RAM", "pinned RAM", "disk"])
def test_a_gpu_holds_two_layers_at_most(tmp_path, tier):
    store = new_store(tier, "none", tmp_path)
    filled(store)
    device = torch.device("cuda", torch.cuda.current_device())
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    ahead = Prefetch(store, device, torch.bfloat16)
    for n, key in enumerate(KEYS):
        q, k = ahead.get(key)
        ahead.expect(KEYS[n + 1 : n + 2])
        del q, k
    ahead.close()
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before <= 2 * store.header.entry_bytes() + 2**21


def test_page_locked_ram_is_used_again_and_given_back(tmp_path):
    """It goes with the store to the pool, from there to the next store, and at last to the system."""
    POOL.trim()
    before, entry = POOL.held, pages(room(new_store("RAM", "none", tmp_path).header.parts()))
    store = new_store("pinned RAM", "none", tmp_path)
    filled(store)
    q = store.get(KEYS[0], torch.device("cpu"), torch.bfloat16)[0]
    assert q.is_pinned()
    assert POOL.held == before + len(KEYS) * entry
    address = {store.get(key, torch.device("cpu"), torch.bfloat16)[0].data_ptr() for key in KEYS}
    del store
    assert POOL.idle >= (len(KEYS) - 1) * entry  # `q` still lies in one
    second = new_store("pinned RAM", "none", tmp_path)
    del q
    filled(second)
    assert {second.get(key, torch.device("cpu"), torch.bfloat16)[0].data_ptr() for key in KEYS} == address
    second.drop()
    assert POOL.trim() >= len(KEYS) * entry
    assert POOL.held == before


def test_memory_that_was_given_back_can_be_locked_anew():
    """The driver refuses memory that it holds for locked already."""
    memory = mapped(2**24)
    for _ in range(3):
        address = memory.ctypes.data
        unlock(address, lock(address, len(memory)))
    assert not torch.from_numpy(memory).is_pinned()


def test_what_cannot_be_locked_leaves_no_error_behind():
    memory = mapped(2**24)
    token = lock(memory.ctypes.data, len(memory))
    with pytest.raises(RuntimeError, match="cudaHostRegister gave error"):
        lock(memory.ctypes.data, len(memory))
    torch.ones(1, device="cuda").add_(1)
    torch.cuda.synchronize()
    unlock(memory.ctypes.data, token)


@pytest.mark.parametrize("tier", ["RAM", "pinned RAM", "disk"])
@pytest.mark.parametrize("quantization", ["none", "int8"])
@pytest.mark.parametrize("kernels", [True, False])
def test_few_entries_wait_on_a_gpu(tmp_path, monkeypatch, tier, quantization, kernels):
    """However far the CPU is ahead, and whoever packs."""
    monkeypatch.setattr(async_writer, "ON_GPU", 2**26)
    if not kernels:
        monkeypatch.setattr("vdit_core.recording.quantization.triton_works", lambda device: False)
    store = new_store(tier, quantization, tmp_path)
    q, k = torch.randn(2, *store.header.shape(), device="cuda").bfloat16()
    busy()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    for key in KEYS:
        x = busy()
        store.put(key, q, k)
        del x
    store.finish()
    working = 3 * 4096 * 4096 * 2  # of `busy`
    assert torch.cuda.max_memory_allocated() - before <= working + 2**26 + 8 * store.header.entry_bytes()


@pytest.mark.parametrize("tier", ["RAM", "pinned RAM", "disk"])
def test_a_run_that_breaks_off_leaves_nothing_on_the_gpu(tmp_path, tier):
    store = new_store(tier, "none", tmp_path)
    q, k = torch.randn(2, *store.header.shape(), device="cuda").bfloat16()
    busy()  # cuBLAS keeps what it needs
    torch.cuda.synchronize()
    before, locked = torch.cuda.memory_allocated(), POOL.held - POOL.idle
    for key in KEYS[:5]:
        busy()
        store.put(key, q, k)
    store.drop()
    assert torch.cuda.memory_allocated() == before
    assert POOL.held - POOL.idle <= locked  # less, where an earlier test's was still in use
    assert list(tmp_path.iterdir()) == []


def test_entries_larger_than_a_piece_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 1_000_003)
    for tier in ("RAM", "disk"):
        for quantization in ("none", "int8"):
            store = new_store(tier, quantization, tmp_path)
            expected = filled(store)
            for key, pair in expected.items():
                for x, y in zip(pair, store.get(key, torch.device("cpu"), torch.bfloat16), strict=True):
                    assert quantization == "int8" or torch.equal(x, y)
                    assert (x.float() - y.float()).norm() / x.float().norm() < 0.01


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("dim", [128, 64, 48])
def test_the_int8_kernel_is_the_plain_way_bit_for_bit(dtype, dim):
    assert triton_works(torch.device("cuda", 0))
    x = (torch.randn(2, 300, 5, dim, device="cuda") * torch.rand(2, 300, 5, 1, device="cuda") * 9).to(dtype)
    for given in (x, x.transpose(1, 2), x.transpose(2, 3), x[..., ::2]):
        expected, found = encode(given.cpu(), "int8"), encode(given, "int8")
        assert all(torch.equal(part.cpu(), expected[name]) for name, part in found.items())
        for out in (torch.bfloat16, torch.float16, torch.float32):
            assert torch.equal(decode(found, out).cpu(), decode(expected, out))


def test_the_plain_way_is_the_same_on_a_gpu(monkeypatch):
    monkeypatch.setattr("vdit_core.recording.quantization.triton_works", lambda device: False)
    x = torch.randn(2, 300, 5, 128, device="cuda").bfloat16()
    expected, found = encode(x.cpu(), "int8"), encode(x, "int8")
    assert all(torch.equal(part.cpu(), expected[name]) for name, part in found.items())

"""Recordings that leave a GPU and come back to it, beside what it computes."""

from __future__ import annotations

import pytest
import torch

from vdit_core.call import ModelSignature, TokenGrid
from vdit_core.recording.store import AttentionStore, Evaluation, Header, Key
from vdit_core.recording.store.async_writer import release_page_locked
from vdit_core.recording.store.prefetch import Prefetch
from vdit_core.recording.store.storage import TIERS, new_storage

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

LAYERS, TOKENS = 12, 4096
CALLS = [("cond", layer) for layer in range(LAYERS)]
KEYS = [Key(Evaluation(sigma), *call) for sigma in (1.0, 0.5) for call in CALLS]


def new_store(tier: str, quantization: str, folder) -> AttentionStore:
    header = Header(
        ModelSignature(LAYERS, 4, 128), TokenGrid(4, 32, 32), (1.0, 0.5), (0, 1, 2, 3), 1, quantization, "bfloat16"
    )
    return AttentionStore(header, new_storage(tier, header, CALLS, folder))


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


def test_page_locked_ram_is_given_back(tmp_path):
    stats = torch.cuda.host_memory_stats
    release_page_locked()  # what earlier tests left would be used again
    before = stats().get("allocated_bytes.current", 0)
    store = new_store("pinned RAM", "none", tmp_path)
    filled(store)
    assert stats().get("allocated_bytes.current", 0) >= before + store.nbytes
    del store
    assert stats().get("allocated_bytes.current", 0) <= before

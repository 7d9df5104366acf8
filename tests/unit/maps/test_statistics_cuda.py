"""The GPU kernels' statistics against the plain map in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import one_hot

from vdit_core.attention.triton import kernels_take
from vdit_core.call import ModelSignature, TokenGrid
from vdit_core.maps import distance, sampling, sums
from vdit_core.maps.crop import Crop, map_crop
from vdit_core.maps.observer import from_store
from vdit_core.maps.pending import Queue
from vdit_core.maps.sampling import bins
from vdit_core.maps.statistics import Plan, map_statistics
from vdit_core.maps.wanted import Wanted
from vdit_core.recording.store import AttentionStore, Evaluation, Header, Key

if not torch.cuda.is_available():
    pytest.skip("needs an NVIDIA GPU", allow_module_level=True)
fused = pytest.importorskip("vdit_core.maps.fused", reason="needs Triton", exc_type=ImportError)

GRIDS = [
    (TokenGrid(5, 9, 13), 30),
    (TokenGrid(3, 17, 19, prefix=37, suffix=5), 7),  # blocks wider than a tile
    (TokenGrid(21, 5, 10, prefix=1), 60),
    (TokenGrid(1, 40, 41), 51),
    (TokenGrid(70, 1, 9, suffix=64), 1),
    (TokenGrid(2, 30, 52), 47),
]
NAMES = ("pooled", "column_mass", "entropy", "frames", "temporal", "spatial", "top", "needed")


def tensors(grid: TokenGrid, dtype=torch.bfloat16, dim: int = 128, rows: int = 1, heads: int = 2, scale: float = 1.5):
    generator = torch.Generator("cuda").manual_seed(grid.tokens + dim)
    shape = 2, rows, grid.tokens, heads, dim  # as a model's projections give them: heads are not contiguous
    x = torch.randn(shape, generator=generator, device="cuda") * scale * (8 / dim) ** 0.25
    return x.to(dtype).transpose(2, 3).unbind(0)


def expected(q, k, grid: TokenGrid, wanted: Wanted, chosen, count: int) -> dict:
    """The figures, float64, of chosen rows; count: how many rows the pooled map has."""
    n, places, device = grid.tokens, distance.places(grid), q.device
    full = (q.double() @ k.double().mT / math.sqrt(q.shape[-1])).softmax(-1)[..., chosen, :]

    def means(x, groups, count):
        into = one_hot(groups.to(device), count).double()
        return (into / into.sum(0)).mT @ x

    entropies = torch.special.entr(full).sum(-1)
    into = one_hot(bins(n, wanted.pooled).to(device), wanted.pooled).double()
    placed = (chosen >= places.start) & (chosen < places.stop)
    position = chosen[placed] - places.start
    cube = full[..., placed.to(device), places].unflatten(-1, (grid.frames, -1))
    size = grid.height * grid.width
    frames = cube.sum(-1)

    def apart(mass, table, at):
        onto = one_hot(table.to(device)).double()[at]  # (c, places, distances)
        return torch.einsum("rhcp,cpd->rhd", mass, onto) / len(position)

    if wanted.top_queries is None:
        which = torch.arange(len(chosen))
    else:
        some = wanted.top_queries
        which = sampling.sample(grid, some, 0) if len(chosen) == n else _spread(chosen, some)
    few = full[..., which, :]
    falling = few.sort(-1, descending=True).values.cumsum(-1)
    needed = ((falling < wanted.reached).sum(-1) + 1).double().mean(-1) / n
    strongest = [few.topk(max(1, round(share * n)), -1).values.sum(-1).mean(-1) for share in wanted.top]
    return {
        "pooled": means(full @ (into / into.sum(0)), bins(n, count)[chosen], count),
        "column_mass": full.mean(2) * n,
        "entropy": entropies.mean(-1),
        "entropies": entropies,
        "frames": means(frames, position // size, grid.frames),
        "temporal": apart(frames, distance.temporal(grid), position // size),
        "spatial": apart(cube.sum(-2), distance.spatial(grid), position % size),
        "top": torch.stack(strongest, -1),
        "needed": needed,
    }


def _spread(chosen, count):
    return torch.linspace(0, len(chosen) - 1, min(len(chosen), count)).long()


def close(found, reference, name):
    assert found.dtype == torch.float32
    assert found.device.type == "cpu"
    torch.testing.assert_close(
        found.double(),
        reference.cpu(),
        rtol=2e-4,
        atol=1e-3 if "needed" in name else 2e-6,  # a key more or less where a sum is the mass but for rounding
        msg=lambda text: f"{name}: {text}",
    )


@pytest.fixture
def only_kernels(monkeypatch):
    """The plain path fails."""
    monkeypatch.setattr(sums.Sums, "sum_rows", None)
    monkeypatch.setattr(sums.Sums, "sum_strongest", None)


@pytest.mark.usefixtures("only_kernels")
@pytest.mark.parametrize("queries", [None, 200])
@pytest.mark.parametrize(("dtype", "dim"), [(torch.bfloat16, 128), (torch.float16, 64)], ids=str)
@pytest.mark.parametrize(("grid", "pooled"), GRIDS, ids=str)
def test_figures_are_those_of_the_plain_map(grid, pooled, dtype, dim, queries):
    q, k = tensors(grid, dtype, dim)
    wanted = Wanted(pooled, top=(0.01, 0.2, 1.0), top_queries=50)
    found = map_statistics(q, k, grid, wanted, queries)
    chosen = torch.arange(grid.tokens) if queries is None else sampling.sample(grid, queries, 0)
    reference = expected(q, k, grid, wanted, chosen, found.pooled.value.shape[-2])
    for name in NAMES:
        close(getattr(found, name).value, reference[name], name)
    close(found.entropies, reference["entropies"], "entropies")


@pytest.mark.parametrize("queries", [None, 333])
def test_rows_heads_and_errors_are_those_of_the_plain_path(queries, monkeypatch):
    grid = TokenGrid(6, 11, 12, prefix=9)
    q, k = tensors(grid, rows=3, heads=7)  # 21 maps, more than are taken together
    monkeypatch.setattr(fused, "_BYTES", 2**20)  # several chunks of rows, too
    wanted = Wanted(40)
    found = map_statistics(q, k, grid, wanted, queries)
    monkeypatch.setattr(fused, "suits", lambda *_: False)
    plain = map_statistics(q, k, grid, wanted, queries)
    for name in NAMES:
        close(getattr(found, name).value, getattr(plain, name).value.double(), name)
        assert (getattr(found, name).error is None) == (getattr(plain, name).error is None)
        if getattr(found, name).error is not None:
            close(getattr(found, name).error, getattr(plain, name).error.double(), f"error of {name}")


@pytest.mark.usefixtures("only_kernels")
@pytest.mark.parametrize("scale", [0.0, 12.0])
def test_uniform_and_very_sharp_maps(scale):
    grid = TokenGrid(4, 10, 13)
    q, k = tensors(grid, scale=scale)
    wanted = Wanted(20, top_queries=50)
    found = map_statistics(q, k, grid, wanted)
    reference = expected(q, k, grid, wanted, torch.arange(grid.tokens), 20)
    for name in NAMES:
        close(getattr(found, name).value, reference[name], name)


@pytest.mark.parametrize("keys", [1, 33, 32760, 70000])
def test_the_strongest_are_found_among_equals_too(keys):
    generator = torch.Generator("cuda").manual_seed(0)
    mass = (4 * torch.randn(5, 3, keys, generator=generator, device="cuda")).softmax(-1)
    mass[0] = 1 / keys
    mass[1] = (mass[1] * keys * 4).round() / keys / 4
    mass[2, 0] = 0
    mass[2, 0, keys // 2] = 1
    counts = torch.tensor([1, keys // 3 + 1, keys], dtype=torch.int32, device="cuda")
    falling = mass.double().sort(-1, descending=True).values.cumsum(-1)
    found = fused.strongest(mass, counts, 0.95)
    torch.testing.assert_close(found[..., :-1].double(), falling[..., counts - 1], rtol=1e-5, atol=1e-7)
    fewest, most = ((falling < 0.95 + off).sum(-1) + 1 for off in (-2e-6, 2e-6))
    assert ((fewest.clamp(max=keys) <= found[..., -1]) & (found[..., -1] <= most.clamp(max=keys))).all()


@pytest.mark.usefixtures("only_kernels")
@pytest.mark.parametrize("queries", [None, 300])
def test_the_strongest_keys_of_all_queries_are_exact(queries, monkeypatch):
    grid = TokenGrid(3, 17, 19, prefix=37)
    monkeypatch.setattr(fused, "_BYTES", 4 * grid.tokens * 77)  # several parts of queries
    q, k = tensors(grid)
    found = map_statistics(q, k, grid, Wanted(20, top_queries=None), queries)
    chosen = torch.arange(grid.tokens) if queries is None else sampling.sample(grid, queries, 0)
    reference = expected(q, k, grid, Wanted(20, top_queries=None), chosen, 20)
    for name in ("top", "needed"):
        close(getattr(found, name).value, reference[name], name)
        assert (getattr(found, name).error is None) == (queries is None)


@pytest.mark.usefixtures("only_kernels")
@pytest.mark.parametrize("wanted", [Wanted(20), Wanted().small()], ids=["whole", "small"])
@pytest.mark.parametrize("queries", [None, 300])
def test_nothing_waits_for_the_gpu_before_the_result_is_read(wanted, queries):
    grid = TokenGrid(6, 11, 12, prefix=9)
    q, k = tensors(grid)
    plan = Plan(grid, wanted, queries)
    first = plan.start(q, k).result()  # what all calls share is made
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        coming = plan.start(q, k)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    again = coming.result()
    assert (again.pooled is None) == (again.column_mass is None) == (wanted.pooled is None)
    for name in ("frames", "temporal", "spatial", "entropy", "top", "needed", "largest"):
        close(getattr(again, name).value, getattr(first, name).value.double(), name)


def test_what_is_pending_is_small_and_comes_in_order():
    grid = TokenGrid(21, 30, 52)
    q, k = tensors(grid, heads=12)
    plan, settled = Plan(grid, Wanted().small(), 256), []
    queue = Queue(lambda tag, found: settled.append((tag, found.needed.value)))
    plan.start(q, k).result()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for n in range(8):
        queue.add(n, plan.start(q, k))
        assert len(queue) <= 4
        assert torch.cuda.memory_allocated() - before <= 8e6
    queue.settle()
    assert [n for n, _ in settled] == list(range(8))
    assert all(torch.equal(value, settled[0][1]) for _, value in settled)


def test_a_chunk_may_interrupt():
    def stop():
        raise KeyboardInterrupt

    grid = TokenGrid(4, 10, 13)
    with pytest.raises(KeyboardInterrupt):
        map_statistics(*tensors(grid), grid, Wanted(20), on_chunk=stop)


def test_what_the_kernels_cannot_do_is_done_without():
    grid = TokenGrid(4, 10, 13)
    q, k = tensors(grid)
    assert kernels_take(q, k)
    assert fused.suits(grid, Wanted(20))
    assert not fused.suits(grid, Wanted())
    assert map_statistics(q, k, grid, Wanted()).exact
    for x in (q.float(), q[..., :48]):
        assert not kernels_take(x, x)
        assert map_statistics(x, x, grid, Wanted(20)).exact


@pytest.mark.parametrize("window", [Crop((3, 50), (100, 300)), Crop((3, 250), (100, 300), edge=32)], ids=str)
def test_a_window_is_a_part_of_the_plain_map(window, monkeypatch):
    grid = TokenGrid(6, 11, 12, prefix=9)
    q, k = tensors(grid, rows=2, heads=3)
    monkeypatch.setattr("vdit_core.attention.reference.rows", None)  # the plain path fails
    monkeypatch.setattr(fused, "_BYTES", 2**16)  # several chunks of rows
    found = map_crop(q, k, window)
    full = (q.double() @ k.double().mT / math.sqrt(q.shape[-1])).softmax(-1)
    part = full[..., slice(*window.rows), slice(*window.columns)]
    for dim, edge in ((-1, found.shape[-1]), (-2, found.shape[-2])):
        into = one_hot(bins(part.shape[dim], edge)).double().to(part.device)
        part = (part.transpose(dim, -1) @ (into / into.sum(0))).transpose(dim, -1)
    close(found, part, "window")


@pytest.fixture(scope="module")
def stored() -> dict[str, AttentionStore]:
    """A layer of Wan2.1-1.3B at 832 x 480 x 81 frames, by quantization."""
    grid, stores = TokenGrid(21, 30, 52), {}
    q, k = tensors(grid, heads=12)
    for quantization in ("none", "int8"):
        header = Header(ModelSignature(1, 12, 128), grid, (1.0,), tuple(range(12)), 1, quantization, "bfloat16")
        stores[quantization] = AttentionStore(header)
        stores[quantization].put(KEY, q, k)
        stores[quantization].finish()  # what is put is on its way until then
    return stores


KEY = Key(Evaluation(1.0), "cond", 0)


@pytest.mark.usefixtures("only_kernels")
@pytest.mark.parametrize("queries", [None, 1024])
@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_a_recording_goes_by_the_kernels(stored, queries, quantization):
    assert from_store(stored[quantization], queries=queries, device="cuda").calls[KEY].queries == queries


@pytest.mark.parametrize("what", ["exact", "sampled", "window"])
def test_memory_at_32760_tokens_is_at_most_256_mb(stored, what):
    q, k = stored["none"].get(KEY, torch.device("cuda"), torch.bfloat16)
    grid = stored["none"].header.grid
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    if what == "window":
        map_crop(q, k, Crop((13260, 19500), (13260, 19500)))
    else:
        map_statistics(q, k, grid, queries=None if what == "exact" else 1024)
    assert torch.cuda.max_memory_allocated() - before <= 256e6

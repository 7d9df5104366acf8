"""Kernels on a GPU against a brute-force mask in float64, on grids of all kinds."""

from __future__ import annotations

import math

import pytest
import torch

from vdit_core.call import TokenGrid

if not torch.cuda.is_available():
    pytest.skip("needs an NVIDIA GPU", allow_module_level=True)

from vdit_core.sparse.block_mask import with_dense_queries
from vdit_core.sparse.config import SparseConfig
from vdit_core.sparse.kernels import kernels_for
from vdit_core.sparse.kernels.flex import Flex
from vdit_core.sparse.kernels.gathered import Gathered
from vdit_core.sparse.patterns import PATTERNS
from vdit_core.sparse.patterns.always import always, placeless
from vdit_core.sparse.sparse_attention import SparseAttention
from vdit_core.sparse.tiled import _means, _ordered, tile
from vdit_core.sparse.tiling import tiles

triton_blocks = pytest.importorskip("vdit_core.sparse.kernels.triton_blocks", reason="needs Triton")
select = pytest.importorskip("vdit_core.attention.triton.topk", reason="needs Triton").select

DEVICE = torch.device("cuda")
GRIDS = [
    TokenGrid(9, 16, 16),
    TokenGrid(7, 15, 22),
    TokenGrid(5, 31, 17, 100, 3),
    TokenGrid(1, 45, 46),
    TokenGrid(4, 16, 32, 0, 77),
]


def random_call(grid: TokenGrid, dtype: torch.dtype, dim: int = 128, rows: int = 2, heads: int = 3):
    generator = torch.Generator(DEVICE).manual_seed(grid.tokens)
    shape = 3, rows, grid.tokens, heads, dim
    return (x.transpose(1, 2) for x in torch.randn(shape, generator=generator, device=DEVICE).to(dtype))


def brute(q, k, v, lists, plan, sharpness):
    place = torch.empty(plan.grid.tokens, dtype=torch.long, device=DEVICE)
    place[plan.permutation.long()] = torch.arange(plan.grid.tokens, device=DEVICE)
    mask = lists.to_dense(plan.key_blocks)[:, :, place // plan.queries][..., place // plan.keys]
    scores = q.double() @ k.double().mT / math.sqrt(q.shape[-1]) * sharpness[:, None, None].double()
    return scores.masked_fill(~mask, -math.inf).softmax(-1) @ v.double()


def relative(found, expected) -> float:
    assert torch.isfinite(found).all()
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize(("dtype", "dim"), [(torch.bfloat16, 128), (torch.float16, 64)], ids=str)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_triton_computes_the_masked_map(grid, dtype, dim, pattern):
    q, k, v = random_call(grid, dtype, dim)
    plan, sharpness = tiles(grid, DEVICE), torch.tensor([1.0, 0.8, 1.3], device=DEVICE)
    call = tile(q, k, v, plan)
    lists = PATTERNS[pattern](call, torch.tensor([0.1, 0.3, 0.7]), always(plan), sharpness)
    lists = with_dense_queries(lists, placeless(plan), plan.key_blocks)
    expected = brute(q, k, v, lists, plan, sharpness)
    plain = relative(torch.nn.functional.scaled_dot_product_attention(q, k, v), brute_dense(q, k, v))
    assert relative(triton_blocks.TritonBlocks()(call, lists, sharpness), expected) < max(2 * plain, 1e-3)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize(("dtype", "dim"), [(torch.bfloat16, 128), (torch.float16, 64)], ids=str)
def test_int8_is_off_by_its_rounding(grid, dtype, dim):
    q, k, v = random_call(grid, dtype, dim)
    k = k + 3  # what smoothing takes away: it changes no map
    plan, sharpness = tiles(grid, DEVICE), torch.tensor([1.0, 0.8, 1.3], device=DEVICE)
    call = tile(q, k, v, plan, int8=True)
    lists = PATTERNS["block top-k"](call, torch.tensor([0.1, 0.3, 0.7]), always(plan), sharpness)
    lists = with_dense_queries(lists, placeless(plan), plan.key_blocks)
    found = triton_blocks.TritonBlocks(int8=True)(call, lists, sharpness)
    assert relative(found, brute(q, k, v, lists, plan, sharpness)) < 2.5e-2


def brute_dense(q, k, v):
    return (q.double() @ k.double().mT / math.sqrt(q.shape[-1])).softmax(-1) @ v.double()


@pytest.mark.parametrize("grid", GRIDS[:3], ids=str)
def test_kernels_agree(grid):
    q, k, v = random_call(grid, torch.bfloat16)
    plan, sharpness = tiles(grid, DEVICE), torch.tensor([1.0, 0.8, 1.3], device=DEVICE)
    call = tile(q, k, v, plan)
    lists = PATTERNS["block top-k"](call, torch.tensor([0.2, 0.2, 0.4]), always(plan), sharpness)
    expected = brute(q, k, v, lists, plan, sharpness)
    for kernel in (Gathered(), Flex()):
        assert relative(kernel(call, lists, sharpness), expected) < 1e-2, kernel.name


def test_wide_values_go_under_one_map():
    grid = GRIDS[1]
    q, k, v = random_call(grid, torch.bfloat16)
    plan, sharpness = tiles(grid, DEVICE), torch.ones(3, device=DEVICE)
    call, wide = tile(q, k, v, plan), tile(q, k, torch.cat([v, -v], dim=-1), plan)
    lists = PATTERNS["block top-k"](call, torch.full((3,), 0.3), always(plan), sharpness)
    kernel = triton_blocks.TritonBlocks()
    narrow = kernel(call, lists, sharpness)
    torch.testing.assert_close(kernel(wide, lists, sharpness), torch.cat([narrow, -narrow], dim=-1))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_tiling_is_that_of_torch(grid):
    q, k, v = random_call(grid, torch.bfloat16)
    plan = tiles(grid, DEVICE)
    call = tile(q, k, v, plan)
    for found, x, repeat in ((call.q, q, False), (call.k, k, True), (call.v, v, False)):
        assert torch.equal(found, _ordered(x, plan, repeat))
    torch.testing.assert_close(call.q_means, _means(call.q, plan, plan.queries), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(call.k_means, _means(call.k, plan, plan.keys), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("keys", [5, 37, 1182])
@pytest.mark.parametrize("scale", [1.0, 1e9])
def test_selection_is_that_of_topk(keys, scale):
    """Scores of any size and sign, and with ties."""
    generator = torch.Generator(DEVICE).manual_seed(keys)
    scores = (torch.randn(2, 3, 7, keys, generator=generator, device=DEVICE) * 4).round() * scale
    kept = torch.zeros(keys, dtype=torch.bool)
    kept[[1, keys - 1]] = True
    first = kept.nonzero()[:, 0].roll(1).int().to(DEVICE)
    counts = torch.tensor([[2, 3, keys], [keys // 2 + 2, 4, keys - 1]], dtype=torch.int32, device=DEVICE)
    lists = select(scores, kept.to(DEVICE), first, counts, keys)
    free = scores.masked_fill(kept.to(DEVICE), -1e30)
    for row in range(2):
        for head in range(3):
            count = int(counts[row, head])
            for found, weights in zip(lists[row, head, :, :count], free[row, head], strict=True):
                assert found[:2].tolist() == first.tolist()
                assert len(set(found.tolist())) == count
                expected = weights.topk(count - 2).values.sort().values
                assert torch.equal(weights[found[2:].long()].sort().values, expected)


def test_it_is_chosen_for_half_precision_and_flex_for_the_rest():
    grid = GRIDS[0]
    q, _, _ = random_call(grid, torch.bfloat16)
    assert [kernel.name for kernel in kernels_for(q, "block top-k")] == ["Triton blocks", "Triton blocks, int8"]
    assert [kernel.name for kernel in kernels_for(q.float(), "window")] == ["flex_attention"]


def test_large_grids_run_faster_than_dense_and_say_so(host):
    synthetic = host(
        layers=2, heads=12, head_dim=128, grid=TokenGrid(13, 30, 52), sigmas=(1.0,), branches=("cond",),
        dtype=torch.bfloat16,
    )  # fmt: skip
    tensors = synthetic.tensors
    synthetic.tensors = lambda seed, site: tuple(x.to(DEVICE) for x in tensors(seed, site))
    editor = SparseAttention(SparseConfig("block top-k", 0.2, dense_first=0.0))
    synthetic.run(1, editor)
    report = editor.report
    assert report.sparse == 2
    assert report.why_dense is None
    assert report.dense_seconds > report.seconds
    assert "Triton blocks" in str(report)

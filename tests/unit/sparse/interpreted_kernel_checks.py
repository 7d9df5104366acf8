"""Run by `test_kernels_interpreted`: the block kernel against a masked map in float64.

The interpreter cuts bfloat16 off where a GPU rounds it: so the tolerances there are wide.
"""

from __future__ import annotations

import contextlib
import math
from types import SimpleNamespace

import pytest
import torch
from triton_interpreter import mend

from vdit_core.call import TokenGrid
from vdit_core.sparse import tiled
from vdit_core.sparse.block_mask import with_dense_queries
from vdit_core.sparse.kernels import triton_blocks
from vdit_core.sparse.patterns import PATTERNS
from vdit_core.sparse.patterns.always import always, placeless
from vdit_core.sparse.tiling import tiles

GRIDS = [TokenGrid(3, 5, 7), TokenGrid(2, 5, 6, 3, 5)]  # small: each program takes the interpreter milliseconds


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    mend()
    about = SimpleNamespace(major=8, shared_memory_per_block_optin=99 * 1024)
    monkeypatch.setattr(torch.cuda, "device_of", lambda x: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: about)
    monkeypatch.setattr(tiled, "triton_works", lambda device: True)
    monkeypatch.setattr(triton_blocks, "_options", triton_blocks._options.__wrapped__)


def call_of(grid, dtype, larger=1.0, width=64, rows=1):
    generator = torch.Generator().manual_seed(grid.tokens)
    q, k = (torch.randn(rows, grid.tokens, 2, 64, generator=generator).transpose(1, 2) for _ in range(2))
    v = torch.randn(rows, 2, grid.tokens, width, generator=generator)
    k += 3 * torch.randn(64, generator=generator)  # what smoothing takes away
    return tuple(x.to(dtype) for x in (larger * q, k, v))


def brute(q, k, v, mask, plan, sharpness):
    place = torch.empty(plan.grid.tokens, dtype=torch.long)
    place[plan.permutation.long()] = torch.arange(plan.grid.tokens)
    seen = mask.to_dense(plan.key_blocks)[:, :, place // plan.queries][..., place // plan.keys]
    scores = q.double() @ k.double().mT / math.sqrt(q.shape[-1]) * sharpness[:, None, None].double()
    return scores.masked_fill(~seen, -math.inf).softmax(-1) @ v.double()


def relative(found, expected):
    assert torch.isfinite(found).all()
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("dtype", "int8", "pattern", "within", "grid"),
    [
        (torch.float16, False, "block top-p", 3e-3, GRIDS[0]),
        (torch.bfloat16, False, "block top-k", 1e-2, GRIDS[1]),
        (torch.float16, True, "window", 2e-2, GRIDS[1]),
        (torch.bfloat16, True, "block top-k", 2e-2, GRIDS[0]),
    ],
    ids=str,
)
def check_the_masked_map(dtype, int8, pattern, within, grid):
    q, k, v = call_of(grid, dtype)
    plan, sharpness = tiles(grid), torch.tensor([1.0, 0.8])
    call = tiled.tile(q, k, v, plan, int8)
    mask = PATTERNS[pattern](call, torch.tensor([0.3, 0.6]), always(plan), sharpness)
    mask = with_dense_queries(mask, placeless(plan), plan.key_blocks)
    found = triton_blocks.TritonBlocks(int8)(call, mask, sharpness)
    assert relative(found, brute(q, k, v, mask, plan, sharpness)) < within


@pytest.mark.parametrize("larger", [0.1, 40.0])
def check_scores_of_any_size(larger):
    """Small ones go without maxima, large ones with: both are there in one of these calls."""
    grid = GRIDS[0]
    q, k, v = call_of(grid, torch.bfloat16, larger)
    q[:, 1] *= 0.01
    plan, sharpness = tiles(grid), torch.ones(2)
    call = tiled.tile(q, k, v, plan)
    mask = PATTERNS["block top-k"](call, torch.tensor([0.3, 0.6]), always(plan), sharpness)
    found = triton_blocks.TritonBlocks()(call, mask, sharpness)
    assert relative(found, brute(q, k, v, mask, plan, sharpness)) < 1e-2


def check_int8_is_what_the_plain_path_makes_of_it():
    grid = GRIDS[1]
    q, k, v = call_of(grid, torch.bfloat16)
    plan = tiles(grid)
    found = tiled.tile(q, k, v, plan, int8=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiled, "triton_works", lambda device: False)
        plain = tiled.tile(q, k, v, plan, int8=True)
    for mine, other in ((found.q, plain.q), (found.k, plain.k)):
        assert (mine.int() - other.int()).abs().max() <= 1  # where a quotient lies on the border
        assert (mine != other).float().mean() < 1e-3
    torch.testing.assert_close(found.scales.queries, plain.scales.queries)
    torch.testing.assert_close(found.scales.keys, plain.scales.keys)
    torch.testing.assert_close(found.k_means, plain.k_means, rtol=1e-4, atol=1e-5)
    lengths = (found.q.float() * found.scales.queries[..., None]).norm(dim=-1)
    torch.testing.assert_close(found.lengths.queries, lengths, rtol=1e-5, atol=1e-6)


def check_wide_values_and_dense_heads_first():
    grid = GRIDS[1]
    q, k, v = call_of(grid, torch.float16, width=128, rows=2)
    plan, sharpness = tiles(grid), torch.ones(2)
    call = tiled.tile(q, k, v, plan)
    mask = PATTERNS["block top-k"](call, torch.tensor([[0.2, 0.9], [0.5, 0.3]]), always(plan), sharpness)
    assert mask.heaviest_first(2, 2).tolist() == [1, 2, 3, 0]
    found = triton_blocks.TritonBlocks()(call, mask, sharpness)
    assert relative(found, brute(q, k, v, mask, plan, sharpness)) < 3e-3

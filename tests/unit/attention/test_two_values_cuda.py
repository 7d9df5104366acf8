"""Several values under one map on a GPU: the kernel in each of its tilings, and the candidates of the autotune."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

if not torch.cuda.is_available():
    pytest.skip("needs an NVIDIA GPU", allow_module_level=True)

from vdit_core.attention import multi_value as one_map

two_values = pytest.importorskip("vdit_core.attention.triton.two_values", reason="needs Triton")


def as_hosts_lay_them(seed: int, tokens: int, dim: int, dtype: torch.dtype, rows: int = 1) -> torch.Tensor:
    """(rows, 3 heads, tokens, dim), heads side by side in memory."""
    generator = torch.Generator("cuda").manual_seed(seed)
    return torch.randn(rows, tokens, 3, dim, device="cuda", generator=generator).to(dtype).transpose(1, 2)


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("tiling", [None, *two_values.TILINGS], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("tokens", "dim"), [(1, 64), (63, 64), (64, 128), (100, 128), (129, 64), (1000, 128)])
def test_the_kernel_is_as_near_as_pytorchs(reference, tiling, dtype, tokens, dim):
    q, k, v = (as_hosts_lay_them(seed, tokens, dim, dtype, rows=2) for seed in range(3))
    q = 3 * q  # a peaked map
    out = torch.empty_like(v)
    try:
        two_values.attend_two(q[0], k[0], (v[0], v[1]), (out[0], out[1]), tiling)
    except two_values.triton.runtime.errors.OutOfResources:
        pytest.skip("this tiling is for GPUs with more shared memory")
    wanted = reference(q[:1], k[:1], v)
    stock = F.scaled_dot_product_attention(q[:1].expand_as(q), k[:1].expand_as(k), v)
    assert error(out, wanted) <= 1.5 * error(stock, wanted) + 1e-6


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("way", ["_by_pairs", "_side_by_side_efficiently", "_one_by_one", "apply_map"])
def test_every_way_serves_every_value(reference, count, way):
    q, k = (as_hosts_lay_them(seed, 200, 128, torch.bfloat16) for seed in (0, 1))
    v = as_hosts_lay_them(2, 200, 128, torch.bfloat16, rows=count)
    values, out = v.split(1), torch.empty_like(v)
    getattr(one_map, way)(q, k, values, out.split(1), F.scaled_dot_product_attention)
    wanted = reference(q, k, v)
    stock = F.scaled_dot_product_attention(q.expand(count, -1, -1, -1), k.expand(count, -1, -1, -1), v)
    assert error(out, wanted) <= 1.5 * error(stock, wanted)

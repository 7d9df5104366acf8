"""The mass of keys by GPU kernels is that of the plain way."""

from __future__ import annotations

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("needs an NVIDIA GPU", allow_module_level=True)

from vdit_core.sinks import measure as measure_file
from vdit_core.sinks.measure import measure
from vdit_core.sinks.observer import map_sinks


@pytest.mark.parametrize(("tokens", "dim"), [(1000, 128), (4097, 64), (32760, 128)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("queries", [None, 333])
def test_mass_and_participation_are_those_of_the_plain_way(monkeypatch, tokens, dim, dtype, queries):
    generator = torch.Generator("cuda").manual_seed(tokens)
    heads = 2 if tokens > 30000 else 3
    q, k = torch.randn(2, tokens, heads, dim, generator=generator, device="cuda").to(dtype).transpose(1, 2).unbind(0)
    k[:, 17] *= 4  # not a sink, but a key that many look at
    chosen = None if queries is None else torch.randperm(tokens)[:queries]
    if queries is None and tokens > 30000:
        pytest.skip("all rows of a large map are not measured")
    mass, participation = measure(q, k, chosen)
    monkeypatch.setattr(measure_file, "kernels_take", lambda *_: False)
    plain_mass, plain_participation = measure(q, k, chosen)
    torch.testing.assert_close(mass, plain_mass, rtol=2e-2, atol=1e-7)
    torch.testing.assert_close(participation, plain_participation, rtol=5e-2, atol=1e-3)
    assert mass.sum(1).tolist() == pytest.approx([1] * heads, rel=1e-3)


def test_what_is_kept_lies_on_the_cpu():
    q, k, v = torch.randn(3, 2, 500, 128, device="cuda", dtype=torch.bfloat16).unbind(0)
    found = map_sinks(q, k, v, v)
    torch.cuda.synchronize()
    assert all(not x.is_cuda for x in vars(found).values())
    assert found.mass.sum() > 0

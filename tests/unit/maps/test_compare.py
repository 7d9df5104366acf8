"""The likeness of maps, against the maps themselves in float64."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from vdit_core.call import TokenGrid
from vdit_core.maps.compare import as_json, compare, compare_maps, verdict
from vdit_core.maps.needed import Published
from vdit_core.maps.observer import from_store
from vdit_core.maps.wanted import Wanted
from vdit_core.recording.recorder import Recorder
from vdit_core.recording.store import StoreError
from vdit_core.selection import Indices, Selection, SelectionError


def plain(q, k):
    return (q.double() @ k.double().mT / math.sqrt(q.shape[-1])).softmax(-1)


@pytest.mark.parametrize("chunk", [4 * 3 * 24 * 5, 2**20])
def test_measures_are_those_of_the_plain_maps(chunk, monkeypatch):
    monkeypatch.setattr("vdit_core.attention.reference.CHUNK_BYTES", chunk)
    tensors = 2 * torch.randn(4, 3, 24, 8, generator=torch.Generator().manual_seed(0))
    a, b = plain(*tensors[:2]), plain(*tensors[2:])
    found = compare_maps(*tensors)
    for head in range(3):
        x, y = a[head].numpy(), b[head].numpy()
        cosine = (x * y).sum() / math.sqrt((x * x).sum() * (y * y).sum())
        assert float(found["cosine"][head]) == pytest.approx(cosine, rel=1e-5)
        correlation = np.corrcoef(x.ravel(), y.ravel())[0, 1]
        assert float(found["correlation"][head]) == pytest.approx(correlation, rel=1e-4)
        middle = (x + y) / 2
        divergence = ((x * np.log2(x / middle)).sum(1) / 2 + (y * np.log2(y / middle)).sum(1) / 2).mean()
        assert float(found["divergence"][head]) == pytest.approx(divergence, rel=1e-4)


def test_equal_maps_and_uniform_maps():
    q, k = 2 * torch.randn(2, 3, 24, 8, generator=torch.Generator().manual_seed(0))
    same = compare_maps(q, k, q, k)
    torch.testing.assert_close(same["cosine"], torch.ones(3).double())
    torch.testing.assert_close(same["correlation"], torch.ones(3).double())
    assert same["divergence"].abs().max() < 1e-6
    flat = compare_maps(q, 0 * k, q, k)
    assert flat["correlation"].abs().max() == 0


@pytest.fixture
def recorded(host):
    def record(seed: int, **changes):
        recorder = Recorder(Selection(**changes))
        host().run(seed, recorder)
        return recorder.store

    return record


def test_a_recording_is_itself_and_not_its_shuffled_self(recorded):
    store = recorded(1)
    found = compare(store, store)
    assert found.layers == (0, 1, 2)
    assert found.pairs == 3 * 3 * 2
    assert found.measured["cosine"].shape == (3, 2)
    assert found.measured["cosine"].min() > 0.999
    assert found.shuffled["cosine"].max() < 0.9


def test_heads_are_ranked_by_the_keys_they_need(recorded):
    first, second = recorded(1), recorded(2)
    found, itself = compare(first, second), compare(first, first)
    observed = from_store(first, wanted=Wanted(top_queries=None))
    one, _ = found.needed
    for layer in range(3):
        calls = torch.cat([call.needed.value for call in observed.of_layer(layer)]).double().mean(0)
        np.testing.assert_allclose(one.values[layer], calls.numpy(), atol=1e-6)
    assert itself.needed[0].rank_correlation(itself.needed[1]) == pytest.approx(1)
    published = Published("a model", -one.values)
    said = verdict(found, itself, published=published)
    between = one.rank_correlation(found.needed[1])
    assert f"by the keys that hold 95 % of their attention: {between:.2f} (the two recordings), 1.00" in said
    assert "1.00 (first and baseline), -1.00 (first and a model, published)" in said
    whole = json.loads(as_json(found, published=published))
    assert whole["compared"]["needed"]["rank_correlation"] == pytest.approx(between, abs=1e-4)
    assert whole["published"]["rank_correlation"]["first"] == pytest.approx(-1)
    assert np.shape(whole["compared"]["needed"]["second"]) == (3, 2)
    assert "published" not in verdict(found)


def test_the_heads_that_both_hold_are_compared(recorded):
    store, one = recorded(1), recorded(1, heads=Indices("1"))
    for first, second in ((one, one), (store, one), (one, store)):
        found = compare(first, second)
        assert found.heads == (1,)
        assert found.measured["cosine"].min() > 0.999


def test_a_chunk_may_interrupt(recorded):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(recorded(1), recorded(2), on_chunk=stop)


def test_another_step_may_be_compared(recorded):
    one, other = recorded(1), recorded(2)
    selection = Selection(steps=Indices("0"))
    same = compare(one, one, selection, other_step=0)
    assert same.measured["cosine"].min() > 0.999
    later = compare(one, one, selection, other_step=2)
    assert later.measured["cosine"].max() < 0.95
    with pytest.raises(StoreError, match="Step 3 is not one of the second recording's 3 steps"):
        compare(one, other, other_step=3)


def test_what_cannot_be_compared_is_named(recorded, host):
    store = recorded(1)
    with pytest.raises(StoreError, match=r"Layer 1, branch cond, noise level 1.0000 is not in the second"):
        compare(store, recorded(1, layers=Indices("0")))
    one, other = (recorded(1, heads=Indices(head)) for head in "01")
    with pytest.raises(StoreError, match=r"None of heads all is in both recordings: they hold \[0\] and \[1\]"):
        compare(one, other)
    with pytest.raises(SelectionError, match="Layer 9"):
        compare(store, store, Selection(layers=Indices("9")))
    recorder = Recorder()
    host(grid=TokenGrid(1, 3, 6)).run(1, recorder)
    with pytest.raises(StoreError, match=r"differ in grid: 2 x 3 x 3 = 18 tokens and 1 x 3 x 6"):
        compare(store, recorder.store)

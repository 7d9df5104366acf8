"""Sampled statistics of real maps: their standard errors are honest."""

from __future__ import annotations

import pytest

from vdit_core.hosts.diffusers import attach
from vdit_core.inspect.observe import Observer, from_store
from vdit_core.inspect.wanted import Wanted
from vdit_core.record import Recorder, Selection
from vdit_core.selection import Indices

QUERIES = 128
WANTED = Wanted(pooled=QUERIES // 32)  # as many rows as a sampled map has


@pytest.fixture(scope="module")
def recorded(demo_model):
    """A recording of three steps, and what an observer saw of the same run."""
    selection = Selection(steps=Indices("0-5/2"))
    recorder, observer = Recorder(selection), Observer(selection, WANTED)
    with attach(demo_model.pipe, recorder, observer):
        demo_model.sample(["A car is driving on the highway"], [1], steps=6)
    return recorder.store, observer.observed


def test_an_observer_sees_what_the_store_holds(recorded):
    store, observed = recorded
    again = from_store(store, wanted=WANTED)
    assert list(again.calls) == list(observed.calls)
    assert len(again.calls) == 9 * 3 * 2
    for key, seen in observed.calls.items():
        assert (again.calls[key].received.value - seen.received.value).abs().max() < 1e-4


def test_sampled_figures_lie_within_three_standard_errors(recorded):
    store, observed = recorded
    within = total = 0
    for seed in range(3):
        sampled = from_store(store, wanted=WANTED, queries=QUERIES, seed=seed)
        for key, exact in observed.calls.items():
            for name in ("received", "entropy", "frames", "temporal", "spatial", "top", "pooled"):
                truth, found = getattr(exact, name), getattr(sampled.calls[key], name)
                near = (truth.value - found.value).abs() <= 3 * found.error + 1e-6
                within, total = within + int(near.sum()), total + near.numel()
    assert within / total >= 0.99
    assert within < total, "errors so wide that nothing is ever outside say nothing"

"""Sampled statistics of real maps: their standard errors are honest."""

from __future__ import annotations

from collections import Counter

import pytest

from vdit_core.hosts.diffusers import attach
from vdit_core.maps import statistics, structure, summary
from vdit_core.maps.observer import MapObserver, from_store
from vdit_core.maps.wanted import Wanted
from vdit_core.recording.recorder import Recorder
from vdit_core.recording.store.query import queries_and_keys
from vdit_core.selection import Indices, Selection

FIGURES = ("column_mass", "largest", "entropy", "frames", "temporal", "spatial", "top", "needed", "pooled")


@pytest.fixture(scope="module")
def recorded(demo_model):
    """A recording of three steps, and what an observer saw of the same run."""
    selection = Selection(steps=Indices("0-5/2"))
    recorder, observer = (
        Recorder(selection),
        MapObserver(selection, Wanted(pooled=4, top_queries=demo_model.grid.tokens)),
    )
    with attach(demo_model.pipe, recorder, observer):
        demo_model.sample(["A car is driving on the highway"], [1], steps=6)
    return recorder.store, observer.observed


def test_an_observer_sees_what_the_store_holds(recorded):
    store, observed = recorded
    again = from_store(store, wanted=Wanted(pooled=4))
    assert list(again.calls) == list(observed.calls)
    assert len(again.calls) == 9 * 3 * 2
    for key, seen in observed.calls.items():
        assert (again.calls[key].column_mass.value - seen.column_mass.value).abs().max() < 1e-4


@pytest.mark.parametrize("queries", [64, 128, 256])
def test_sampled_figures_lie_within_three_standard_errors(recorded, queries):
    """Of each kind of figure on its own; the largest of estimates is no estimate of the largest."""
    store, observed = recorded
    within, total = Counter(), Counter()
    wanted = Wanted(pooled=queries // 32)  # as many rows as a sampled map has
    for n, (key, exact) in enumerate(from_store(store, wanted=wanted).calls.items()):
        q, k = queries_and_keys(store, key, (0, 1), "cpu")
        for seed in range(6 * n, 6 * n + 6):
            sampled = statistics.map_statistics(q, k, store.header.grid, wanted, queries, seed)
            for name in FIGURES:
                truth = getattr(observed.calls[key] if name in ("top", "needed") else exact, name).value
                found = getattr(sampled, name)
                near = (truth - found.value).abs() <= 3 * found.error + 1e-6
                within[name] += int(near.sum())
                total[name] += near.numel()
    shares = {name: within[name] / total[name] for name in FIGURES}
    assert {name: share for name, share in shares.items() if share < 0.99 and name != "largest"} == {}
    assert sum(within.values()) < sum(total.values()), "errors so wide that nothing is ever outside say nothing"


def test_the_table_tells_errors_and_how_many_queries(recorded):
    store, _ = recorded
    exact, sampled = (summary.summary(structure.look(store, queries=queries).observed) for queries in (None, 128))
    assert (exact["queries"], exact["top_queries"]) == ("all", 128)
    assert set(exact["layers"][0]["errors"]) == {"strongest", "needed"}
    for layer, row in sampled["layers"].items():
        for name in (
            "same_frame",
            "same_place",
            "entropy",
            "entropy_share",
            "strongest",
            "needed",
            "largest_column_mass",
        ):
            assert row["errors"][name] > 0
        assert abs(row["same_frame"] - exact["layers"][layer]["same_frame"]) <= 3 * row["errors"]["same_frame"]
    text = summary.as_text(sampled)
    assert " ± " in text.splitlines()[2]
    assert "128 of 320 queries of each" in text
    assert "all queries of each, for the strongest keys 128" in summary.as_text(exact)


def test_what_is_kept_does_not_grow_with_the_maps(recorded):
    store, _ = recorded
    found = structure.look(store, pooled=64)
    assert all(call.pooled is call.column_mass is call.entropies is None for call in found.observed.calls.values())
    assert list(found.shown.maps) == list(store.evaluations)
    assert all(one.shape == (64, 64) for one in found.shown.maps.values())

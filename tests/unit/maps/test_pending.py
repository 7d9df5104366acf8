"""Statistics that come later: in order, never many at once, and none left behind."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from vdit_core.call import ModelSignature, Run, TokenGrid
from vdit_core.maps import observer, pending
from vdit_core.maps.estimate import Estimate
from vdit_core.maps.observer import MapObserver, auto_queries, from_store
from vdit_core.maps.statistics import map_statistics
from vdit_core.maps.summary import summary
from vdit_core.maps.wanted import Wanted
from vdit_core.recording.recorder import Recorder
from vdit_core.selection import Indices, Selection

GRID = TokenGrid(3, 5, 6, prefix=2)


class Later:
    """Is there when somebody says so."""

    def __init__(self, name: int, there: bool = False) -> None:
        self.name, self.there = name, there

    def ready(self) -> bool:
        return self.there

    def result(self) -> int:
        return self.name


def test_what_comes_is_settled_in_order_and_at_most_so_many_wait():
    settled = []
    queue = pending.Queue(lambda tag, found: settled.append((tag, found)), most=3)
    coming = [Later(n) for n in range(6)]
    for later in coming[:3]:
        queue.add("x", later)
    coming[1].there = True  # the first is not: the second waits behind it
    queue.add("y", coming[3])
    assert [n for _, n in settled] == [0, 1]  # the first because too many wait, the second because it is there
    queue.add("y", coming[4])
    assert len(queue) == 3
    queue.settle()
    assert settled == [("x", 0), ("x", 1), ("x", 2), ("y", 3), ("y", 4)]
    queue.add("z", coming[5])
    queue.clear()
    queue.settle()
    assert len(settled) == 5


@pytest.fixture
def late(monkeypatch):
    """As on a GPU: nothing is there before it is asked for."""
    monkeypatch.setattr(pending.OnTheWay, "ready", lambda self: False)


@pytest.mark.usefixtures("late")
def test_a_run_settles_all_in_order_and_shows_it(host):
    shown = []
    watch = MapObserver(show=lambda key, found: shown.append((key, found.pooled is not None)))
    host(grid=GRID).run(1, watch)
    assert [key for key, _ in shown] == list(watch.observed.calls)
    assert len(shown) == 3 * 3 * 2
    assert all(whole for _, whole in shown)
    assert watch._coming is watch._plans is None


@pytest.mark.usefixtures("late")
def test_few_wait_and_a_run_that_breaks_off_leaves_none(host):
    waiting = []

    class Breaks(MapObserver):
        def _observe(self, *given):
            done = super()._observe(*given)
            waiting.append(len(self._coming))
            if len(waiting) == 9:
                raise KeyboardInterrupt
            return done

    watch = Breaks()
    with pytest.raises(KeyboardInterrupt):
        host(grid=GRID).run(1, watch)
    assert max(waiting) == 4
    assert watch._coming is watch._plans is None
    with pytest.raises(RuntimeError, match="has not ended well"):
        _ = watch.observed


@pytest.mark.usefixtures("late")
def test_a_recording_gives_the_same_whether_it_waits_or_not(host, monkeypatch):
    recorder = Recorder()
    host(grid=GRID).run(1, recorder)
    store = recorder.store
    late = from_store(store)
    monkeypatch.undo()
    for key, found in from_store(store).calls.items():
        assert torch.equal(found.needed.value, late.calls[key].needed.value)


def test_only_what_is_looked_at_is_whole(host):
    shown = {}

    class Show:
        def looks_at(self, key):
            return key.layer == 1

        def __call__(self, key, found):
            shown[key] = found

    watch = MapObserver(show=Show())
    host(grid=GRID).run(1, watch)
    assert {key.layer for key, found in shown.items() if found.pooled is not None} == {1}
    assert {key.layer for key, found in shown.items() if found.column_mass is not None} == {1}
    plain = MapObserver()
    host(grid=GRID).run(1, plain)
    for key, found in watch.observed.calls.items():
        for name in ("frames", "spatial", "largest", "needed"):
            assert torch.equal(getattr(found, name).value, getattr(plain.observed.calls[key], name).value)


def test_what_stays_holds_nothing_else_in_memory():
    q, k = torch.randn(2, 1, 2, GRID.tokens, 8)
    found = map_statistics(q, k, GRID, queries=70).small()
    for field in fields(found):
        figure = getattr(found, field.name)
        for part in (figure.value, figure.error) if isinstance(figure, Estimate) else ():
            assert part.untyped_storage().nbytes() <= 2 * 4 * GRID.tokens


def run_of(tokens: int, layers: int = 30, steps: int = 20) -> Run:
    sigmas = tuple(1 - n / steps for n in range(steps))
    return Run(ModelSignature(layers, 12, 128), TokenGrid(20, 1, tokens // 20), sigmas, ("cond",), 1, torch.float32)


@pytest.mark.parametrize(
    ("tokens", "layers", "steps", "queries"),
    [(8000, "all", "all", None), (32760, "all", "all", 256), (32760, "all", "0-4", 1024), (32760, "3", "all", 1024)],
)
def test_how_many_queries_stand_for_all_goes_by_what_is_observed(tokens, layers, steps, queries):
    run = run_of(tokens)
    chosen = Selection(layers=Indices(layers), steps=Indices(steps)).resolve(run)
    assert auto_queries(run, chosen) == queries


def test_many_frames_need_more_queries():
    run = Run(ModelSignature(2, 2, 8), TokenGrid(300, 2, 20), (1.0,), ("cond",), 1, torch.float32)
    assert auto_queries(run, Selection().resolve(run)) == 600


def test_the_verdict_says_how_many(host, monkeypatch):
    watch = MapObserver()
    host(grid=GRID).run(1, watch)
    assert watch.verdict().text == "observed 18 calls, all queries"
    for name, value in (("EXACT_UP_TO", 50), ("SAMPLED_EVERYWHERE", 70)):
        monkeypatch.setattr(observer, name, value)
    host(grid=GRID).run(1, watch)
    assert watch.verdict().text == "observed 18 calls, 70 of 92 queries, sampled"
    found = watch.observed.calls.popitem()[1]
    assert found.queries == 70
    assert (found.pooled, found.column_mass, found.top.value.shape[-1]) == (None, None, 1)
    assert summary(watch.observed)["layers"]


def test_another_word_for_queries_is_refused():
    with pytest.raises(ValueError, match="queries is 'some'; it is a number, None for all, or 'auto'"):
        MapObserver(queries="some")


def test_small_statistics_are_wanted_small():
    small = Wanted(pooled=64, top=(0.1,)).small()
    assert (small.pooled, small.per_token, small.top) == (None, False, (0.1,))

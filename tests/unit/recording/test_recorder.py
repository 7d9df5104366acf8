from __future__ import annotations

import weakref

import pytest
import torch

from vdit_core.recording.budget import MemoryBudget, RecordingTooLarge
from vdit_core.recording.recorder import Recorder
from vdit_core.recording.store import Evaluation, Key
from vdit_core.selection import Indices, Selection, SelectionError

CPU = torch.device("cpu")


@pytest.mark.parametrize("batched", [False, True])
def test_it_keeps_the_queries_and_keys_of_every_call(host, batched):
    source = host(samples=2, batched=batched)
    recorder = Recorder()
    stock = source.run(1)
    observed = source.run(1, recorder)
    assert all(torch.equal(stock[key], value) for key, value in observed.items())
    assert len(recorder.store) == 3 * 3 * 2
    for site in source.sites():
        q, k, _ = source.tensors(1, site)
        for branch in ("cond", "uncond"):
            rows = [i for i, row in enumerate(site.rows) if row.branch == branch]
            if rows:
                kept = recorder.store.get(Key(Evaluation(site.sigma), branch, site.layer), CPU, torch.float32)
                assert torch.equal(kept[0], q[rows])
                assert torch.equal(kept[1], k[rows])


def test_it_keeps_what_was_selected_and_no_more(host):
    selection = Selection(Indices("1-2"), Indices("1"), Indices("0%-50%"), "uncond")
    recorder = Recorder(selection)
    source = host()
    source.run(1, recorder)
    store = recorder.store
    assert store.layers == (1, 2)
    assert store.header.heads == (1,)
    assert store.branches == ("uncond",)
    assert [e.sigma for e in store.evaluations] == [1.0, 0.8]
    site = next(s for s in source.sites() if s.layer == 2 and s.rows[0].branch == "uncond")
    q, _, _ = source.tensors(1, site)
    assert torch.equal(store.get(Key(Evaluation(1.0), "uncond", 2), CPU, torch.float32)[0], q[:, 1:2])
    assert "2 of 3 layers, 1 of 2 heads, 2 evaluations of 3 steps, branches uncond" in str(store)


@pytest.mark.parametrize("text", ["none", "0-0"])
def test_an_empty_selection_costs_nothing_and_leaves_an_empty_store(host, text):
    selection = Selection(layers=Indices("none")) if text == "none" else Selection(heads=Indices("none"))
    recorder = Recorder(selection)
    host().run(1, recorder)
    assert len(recorder.store) == 0
    assert not any(recorder.wants(site) for site in host().sites())


def test_evaluations_inside_a_step_are_kept_under_their_own_level(host):
    recorder = Recorder()
    host().run(1, recorder, evaluations=(1.0, 0.8, 0.8, 0.65, 0.5))
    assert recorder.store.evaluations == tuple(
        Evaluation(*e) for e in ((1.0, 0), (0.8, 0), (0.8, 1), (0.65, 0), (0.5, 0))
    )


def test_a_selection_that_does_not_fit_is_refused_before_anything_is_computed(host):
    def backend(*_):
        pytest.fail("attention was computed")

    for selection in (
        Selection(layers=Indices("3")),
        Selection(heads=Indices("2")),
        Selection(steps=Indices("9")),
        Selection(branches="middle"),
    ):
        with pytest.raises(SelectionError):
            host().run(1, Recorder(selection), backend=backend)


def test_there_is_no_store_until_a_run_ended_well(host):
    recorder = Recorder()
    with pytest.raises(RuntimeError, match="no recording"):
        _ = recorder.store
    host().run(1, recorder)
    assert len(recorder.store) > 0

    def broken(*_):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        host().run(1, recorder, backend=broken)
    with pytest.raises(RuntimeError, match="no recording"):
        _ = recorder.store


def test_a_second_run_starts_a_new_store(host):
    recorder = Recorder()
    host().run(1, recorder)
    first = recorder.store
    host(layers=1).run(2, recorder)
    assert len(recorder.store) == len(first) // 3


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="'fp4' is not one of none, int8"):
        Recorder(quantization="fp4")


def test_what_does_not_fit_the_budget_is_refused_before_the_first_call(host):
    """18 calls of 2 x (2 heads x 18 tokens x 8) x 4 bytes."""
    weight = 18 * 2 * 2 * 18 * 8 * 4
    recorder = Recorder(budget=MemoryBudget(weight))
    host().run(1, recorder)
    assert recorder.store.nbytes == weight
    calls = []
    with pytest.raises(RecordingTooLarge, match=r"3 layers x 3 steps x 2 branches = 18 calls of .*; 17 fit\. .*int8"):
        host().run(1, Recorder(budget=MemoryBudget(weight - 1)), backend=lambda *qkv: calls.append(qkv))
    assert not calls
    host().run(1, Recorder(quantization="int8", budget=MemoryBudget(weight // 2)))


def test_the_evaluations_that_are_known_of_count(host):
    weight = 18 * 2 * 2 * 18 * 8 * 4
    with pytest.raises(RecordingTooLarge, match=r"2 branches x 2 evaluations = 36 calls of .*; 18 fit"):
        host(evaluations=2).run(1, Recorder(budget=MemoryBudget(weight)))
    host(evaluations=2).run(1, Recorder(budget=MemoryBudget(2 * weight)))


def test_steps_that_do_not_come_need_no_room(host):
    weight = 15 * 2 * 2 * 18 * 8 * 4
    host(absent=frozenset({(1, "uncond")})).run(1, Recorder(budget=MemoryBudget(weight)))


def test_a_recording_stops_at_its_budget_whatever_the_sampler_does(host):
    """Levels that were not foreseen do not fit: the run ends with a reason, and nothing is kept."""
    weight = 18 * 2 * 2 * 18 * 8 * 4
    recorder, calls = Recorder(budget=MemoryBudget(weight)), []

    def backend(q, k, v):
        calls.append(q)
        return v

    with pytest.raises(RecordingTooLarge, match=r"has reached .*, 18 calls, at noise level 0\.5000: .*more often"):
        host().run(1, recorder, evaluations=(1.0, 0.9, 0.8, 0.5), backend=backend)
    assert len(calls) == 18
    with pytest.raises(RuntimeError, match="no recording"):
        _ = recorder.store


def test_a_store_that_was_taken_is_let_go(host):
    recorder = Recorder()
    host().run(1, recorder)
    store = weakref.ref(recorder.take())
    assert store() is None
    with pytest.raises(RuntimeError, match="no recording"):
        recorder.take()

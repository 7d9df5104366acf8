"""What is looked at in a recording, what of it is read, and what is kept."""

from __future__ import annotations

import pytest
import torch

from vdit_core.call import TokenGrid
from vdit_core.maps import observer, structure, summary
from vdit_core.maps.observer import from_store
from vdit_core.maps.view import title
from vdit_core.recording.recorder import Recorder
from vdit_core.recording.store import StoreError
from vdit_core.selection import Indices, Selection

GRID = TokenGrid(3, 5, 6, prefix=2)


@pytest.fixture
def recorded(host):
    def record(selection: Selection | None = None, quantization: str = "none", **changes):
        recorder = Recorder(selection, quantization)
        host(grid=GRID, **changes).run(1, recorder)
        return recorder.store

    return record


@pytest.fixture
def seen(monkeypatch) -> list[torch.Tensor]:
    """The queries that statistics were computed of."""
    given = []
    plain = observer.Plan.start
    monkeypatch.setattr(observer.Plan, "start", lambda self, q, *rest: given.append(q) or plain(self, q, *rest))
    return given


@pytest.mark.parametrize(("dtype", "quantization"), [("bfloat16", "none"), ("bfloat16", "int8"), ("float32", "none")])
def test_a_recording_is_read_in_its_own_dtype_and_not_copied(recorded, seen, dtype, quantization):
    store = recorded(quantization=quantization, dtype=getattr(torch, dtype))
    found = from_store(store, Selection(heads=Indices("1")))
    assert [x.dtype for x in seen] == [getattr(torch, dtype)] * len(store)
    kept = {part.untyped_storage().data_ptr() for entry in store._storage._entries.values() for part in entry.values()}
    copied = [x for x in seen if x.untyped_storage().data_ptr() not in kept]
    assert len(copied) == (len(store) if quantization == "int8" else 0)
    assert found.heads == (1,)


def test_an_observer_makes_no_copies_either(host, seen):
    given = []

    class Look(observer.MapObserver):
        def __call__(self, call, proceed):
            given.append(call.q.data_ptr())
            return super().__call__(call, proceed)

    host(grid=GRID).run(1, Look(Selection(heads=Indices("0"))))
    assert [x.data_ptr() for x in seen] == given


def test_all_is_kept_only_if_nobody_looks(recorded):
    store = recorded()
    assert all(call.pooled is not None for call in from_store(store).calls.values())
    found = structure.look(store, pooled=16)
    assert all(call.pooled is call.column_mass is call.entropies is None for call in found.observed.calls.values())
    assert list(found.shown.maps) == list(store.evaluations)
    assert all(one.shape == (16, 16) for one in found.shown.maps.values())


def test_a_video_of_several_is_chosen_and_named(recorded):
    one, store = recorded(), recorded(samples=2)
    first, second = (structure.look(store, choice=structure.Choice(sample=sample)) for sample in (0, 1))
    assert (first.part - second.part).abs().max() > 1e-3
    assert summary.summary(first.observed)["maps"] == 3 * 3 * 2 * 2 * 2  # layers, steps, branches, heads, videos
    assert title(second.shown.run, second.shown.view) == (
        "layer 1, mean of heads · step 1 of 0-2 (noise 0.80) · cond, sample 1"
    )
    alone = structure.look(one).shown
    assert title(alone.run, alone.view).endswith("· cond")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"layer": 9}, r"no map of layer 9, branch 'cond'; there are layers \[0, 1, 2\]"),
        ({"step": 3}, r"no map of step 3, branch 'cond'; there are steps \[0, 1, 2\]"),
        ({"head": 2}, r"no map of head 2; there are heads \[0, 1\]"),
        ({"sample": 1}, r"no map of sample 1; there are samples \[0\]"),
        ({"rows": "5"}, "Cannot read rows '5': write tokens as first-last"),
        ({"columns": "90-92"}, "columns 90 to 92 do not lie within the map's 92 tokens, 0 to 91"),
    ],
)
def test_mistakes_are_named_before_anything_is_computed(recorded, seen, choice, message):
    with pytest.raises(ValueError, match=message):
        structure.look(recorded(), choice=structure.Choice(**choice))
    assert seen == []


def test_too_few_queries_are_named_before_anything_is_computed(recorded, seen):
    with pytest.raises(ValueError, match=r"9 sampled queries: of a map on 3 x 5 x 6 .* at least 64"):
        structure.look(recorded(), queries=9)
    assert seen == []


def test_a_branch_that_was_not_recorded_is_named_with_those_that_were(recorded):
    store = recorded(Selection(branches="uncond"))
    with pytest.raises(StoreError, match="Branch 'cond' was not recorded; the store holds uncond"):
        structure.look(store, Selection(branches="cond"))
    assert structure.look(store, choice=structure.Choice(branch="all")).shown.view.key.branch == "uncond"


def test_a_guiders_own_branches_can_be_shown(recorded):
    store = recorded(branches=("cond", "cond 2"))
    found = structure.look(store, Selection(branches="cond 2"), structure.Choice(branch="cond 2"))
    assert {key.branch for key in found.observed.calls} == {"cond 2"}


def test_an_interrupt_ends_it(recorded):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        structure.look(recorded(), on_chunk=stop)

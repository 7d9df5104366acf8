"""Stored and live transfer against a float64 implementation that materialises every map."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vdit_core.call import Interceptor, TokenGrid
from vdit_core.record import Recorder, Selection
from vdit_core.selection import Indices, LayerMask, SelectionError
from vdit_core.store import Key
from vdit_core.transfer import LiveTransfer, Report, Transfer, TransferError, Where

SOURCE, TARGET = 1, 2


def record(host, selection: Selection | None = None, **options):
    recorder = Recorder(selection)
    host(**options).run(SOURCE, recorder)
    return recorder.store


def expected(reference, target, where: Where, source_of):
    """What every row's output must be: (1 - s) own map + s source map, per head, on the target's own values.

    source_of: site and row number -> the (q, k) whose map is taken.
    """
    run = target.describe()
    strengths, steps = where.layers.resolve(run.model.layers), where.steps.resolve(run.steps, "step")
    heads = where.heads.resolve(run.model.heads, "head")
    outputs = {}
    for site in target.sites():
        q, k, v = target.tensors(TARGET, site)
        for i, row in enumerate(site.rows):
            output = reference(q[i], k[i], v[i])
            if site.step in steps and where.branches in ("all", row.branch):
                strength = strengths.get(site.layer, 0.0)
                source = reference(*source_of(site, i), v[i])
                for head in heads:
                    output[head] = (1 - strength) * output[head] + strength * source[head]
            outputs[site.layer, site.sigma, site.visit, row.branch, row.sample] = output
    return outputs


WHERES = [
    Where(),
    Where(LayerMask("1")),
    Where(LayerMask("0:0.25, 2:0.8")),
    Where(heads=Indices("1")),
    Where(LayerMask("0-1:0.5"), heads=Indices("0")),
    Where(steps=Indices("1-2")),
    Where(branches="uncond"),
    Where(LayerMask("all:0.3"), Indices("1"), Indices("0%-34%"), "cond"),
]


@pytest.mark.parametrize("where", WHERES, ids=str)
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("samples", [1, 3])
def test_stored_transfer_is_exact(host, reference, where, batched, samples):
    store = record(host)
    target = host(samples=samples, batched=batched, dtype=torch.float64)
    transfer = Transfer(store, where)
    got = target.run(TARGET, transfer)

    def source_of(site, i):
        evaluation = store.find(site.sigma)
        key = Key(evaluation, site.rows[i].branch, site.layer)
        return (x[0] for x in store.get(key, torch.device("cpu"), torch.float64))

    for key, value in expected(reference, target, where, source_of).items():
        torch.testing.assert_close(got[key], value, rtol=1e-9, atol=1e-9, msg=str(key))
    assert transfer.report.replaced == transfer.report.expected > 0


def test_several_recorded_samples_are_taken_row_by_row(host, reference):
    source, target = host(samples=2), host(samples=2, dtype=torch.float64)
    store = record(host, samples=2)
    got = target.run(TARGET, Transfer(store))

    def source_of(site, i):
        q, k, _ = source.tensors(SOURCE, site)
        return q[i], k[i]

    for key, value in expected(reference, target, Where(), source_of).items():
        torch.testing.assert_close(got[key], value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("where", WHERES, ids=str)
@pytest.mark.parametrize("batched", [False, True])
def test_live_transfer_is_exact(host, reference, where, batched):
    target = host(samples=3, batched=batched, dtype=torch.float64)
    transfer = LiveTransfer(where)
    got = target.run(TARGET, transfer)

    def source_of(site, i):
        q, k, _ = target.tensors(TARGET, site)
        first = next(j for j, r in enumerate(site.rows) if r.branch == site.rows[i].branch and r.sample == 0)
        return q[first], k[first]

    for key, value in expected(reference, target, where, source_of).items():
        torch.testing.assert_close(got[key], value, rtol=1e-9, atol=1e-9, msg=str(key))
    assert transfer.report.replaced == transfer.report.expected > 0


MASKS = [LayerMask(text) for text in ("none", "1", "all", "0:0.25, 2:0.8", "0-1", "1:0.25")]


@pytest.mark.parametrize("where", [Where(), *WHERES[3:]], ids=str)
@pytest.mark.parametrize("batched", [False, True])
def test_a_mask_for_each_target_is_what_each_mask_gives_alone(host, where, batched):
    target = host(samples=1 + len(MASKS), batched=batched, dtype=torch.float64)
    stock, transfer = target.run(TARGET), LiveTransfer(where, MASKS)
    got = target.run(TARGET, transfer)
    for n, mask in enumerate(MASKS, start=1):
        alone = target.run(TARGET, LiveTransfer(replace(where, layers=mask)))
        for key in (key for key in got if key[-1] == n):
            torch.testing.assert_close(got[key], alone[key], rtol=1e-12, atol=1e-12, msg=f"{mask} at {key}")
            if mask.text == "none":
                torch.testing.assert_close(got[key], stock[key], rtol=1e-12, atol=1e-12)
    for key in (key for key in got if key[-1] == 0):
        torch.testing.assert_close(got[key], stock[key], rtol=1e-12, atol=1e-12)
    assert transfer.report.replaced == transfer.report.expected > 0


@pytest.mark.parametrize("batched", [False, True])
def test_only_rows_that_take_a_map_share_it(host, batched):
    """One softmax a layer and branch for the source and its takers; the others are one stock call."""
    target = host(samples=4, batched=batched)
    calls = []

    class Watcher(Interceptor):
        def __call__(self, call, proceed):
            calls.append((call.site.layer, len(call.site.rows), call.v.shape[-1] // call.q.shape[-1]))
            return proceed(call)

    target.run(TARGET, LiveTransfer(masks=[LayerMask("0"), LayerMask("0-1"), LayerMask("none")]), Watcher())
    others = 2 if batched else 1  # both branches' rows in one call
    shared = [(0, 1, 3), (1, 1, 2)]
    assert {call for call in calls if call[2] > 1} == set(shared)
    assert {call for call in calls if call[2] == 1} == {(0, others, 1), (1, 2 * others, 1), (2, 4 * others, 1)}


def test_as_many_masks_as_targets(host):
    with pytest.raises(TransferError, match="2 layer masks for 3 targets"):
        host(samples=4).run(TARGET, LiveTransfer(masks=[LayerMask("none")] * 2))
    with pytest.raises(SelectionError, match="Layer 3"):
        host(samples=2).run(TARGET, LiveTransfer(masks=[LayerMask("3")]))


def test_a_run_transferred_into_itself_is_itself(host):
    recorder = Recorder()
    stock = host().run(SOURCE, recorder)
    again = host().run(SOURCE, Transfer(recorder.store))
    assert all(torch.equal(stock[key], value) for key, value in again.items())


@pytest.mark.parametrize(
    "where",
    [Where(LayerMask("none")), Where(LayerMask("all:0")), Where(heads=Indices("none")), Where(steps=Indices("none"))],
    ids=str,
)
def test_strength_zero_and_empty_selections_are_stock_bit_for_bit(host, where):
    stock = host(samples=2).run(TARGET)
    for transfer in (Transfer(record(host), where), LiveTransfer(where)):
        got = host(samples=2).run(TARGET, transfer)
        assert all(torch.equal(stock[key], value) for key, value in got.items())
        assert str(transfer.report) == "replaced 0 of 0 calls"


def test_int8_is_close(host):
    recorder = Recorder(precision="int8")
    stock = host(head_dim=64).run(SOURCE, recorder)
    got = host(head_dim=64).run(SOURCE, Transfer(recorder.store))
    error = sum((got[key] - value).norm() ** 2 for key, value in stock.items())
    assert 0 < (error / sum(value.norm() ** 2 for value in stock.values())) ** 0.5 < 0.01


def test_several_interceptors_compose_in_order(host):
    """A recorder inside a transfer sees the source's map, one outside sees the target's own."""
    store, inner, outer = record(host), Recorder(), Recorder()
    host().run(TARGET, outer, Transfer(store), inner)
    key = Key(store.evaluations[0], "cond", 1)
    q = {name: s.get(key, torch.device("cpu"), torch.float32)[0] for name, s in
         (("source", store), ("inner", inner.store), ("outer", outer.store))}  # fmt: skip
    assert torch.equal(q["inner"], q["source"])
    assert not torch.equal(q["outer"], q["source"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 4}, "model of 3 layers x 2 heads x 8; this one has 4 layers"),
        ({"heads": 3}, "this one has 3 layers x 3 heads"),
        ({"head_dim": 16}, "2 heads x 16"),
        ({"grid": TokenGrid(2, 3, 4)}, "grid of 2 x 3 x 3 = 18 tokens; this run has 2 x 3 x 4 = 24 tokens"),
        ({"grid": TokenGrid(2, 3, 3, prefix=2)}, "this run has 2 x 3 x 3 [+] 2 = 20 tokens"),
        ({"sigmas": (1.0, 0.9, 0.5)}, r"Step 1 is at noise level 0\.9000, which was not recorded"),
        ({"branches": ("cond", "uncond", "middle")}, "branch 'middle' at step 0 was not recorded"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_computed(host, options, message):
    def backend(*_):
        pytest.fail("attention was computed")

    with pytest.raises(TransferError, match=message):
        host(**options).run(TARGET, Transfer(record(host)), backend=backend)


@pytest.mark.parametrize(
    ("selection", "where", "message"),
    [
        (Selection(layers=Indices("0-1")), Where(), "Layer 2 of branch 'cond' at step 0 was not recorded"),
        (Selection(heads=Indices("0")), Where(), r"Heads \[1\] were not recorded"),
        (Selection(steps=Indices("0-1")), Where(), r"Step 2 is at noise level 0\.5000"),
        (Selection(branches="cond"), Where(), "branch 'uncond' at step 0 was not recorded"),
        (Selection(layers=Indices("none")), Where(), "recorded: none"),
    ],
)
def test_what_was_not_recorded_is_refused(host, selection, where, message):
    with pytest.raises(TransferError, match=message):
        host().run(TARGET, Transfer(record(host, selection), where))


def test_a_part_of_the_recording_serves_a_part_of_the_target(host):
    store = record(host, Selection(Indices("1"), Indices("0"), Indices("1"), "cond"))
    where = Where(LayerMask("1"), Indices("0"), Indices("1"), "cond")
    transfer = Transfer(store, where)
    host().run(TARGET, transfer)
    assert transfer.report == Report(1, 1)


def test_masks_steps_and_branches_that_are_not_there_are_refused(host):
    store = record(host)
    for where in (Where(LayerMask("3")), Where(LayerMask("all", made_for=30)), Where(branches="middle"),
                  Where(heads=Indices("5")), Where(steps=Indices("7"))):  # fmt: skip
        with pytest.raises(SelectionError):
            host().run(TARGET, Transfer(store, where))


def test_batches_that_do_not_match_are_refused(host):
    with pytest.raises(TransferError, match="holds 2 samples, this run has 3"):
        host(samples=3).run(TARGET, Transfer(record(host, samples=2)))
    with pytest.raises(TransferError, match="needs a batch of the source and at least one target"):
        host().run(TARGET, LiveTransfer())


def test_levels_inside_a_step_run_stock_and_are_counted(host):
    evaluations = (1.0, 0.9, 0.8, 0.5)
    stock = host().run(TARGET, evaluations=evaluations)
    transfer = Transfer(record(host))
    got = host().run(TARGET, transfer, evaluations=evaluations)
    same = {key[1] for key, value in got.items() if torch.equal(stock[key], value)}
    assert same == {0.9}
    assert transfer.report == Report(18, 18, missed=6)
    assert str(transfer.report) == "replaced 18 of 18 calls; 6 more, inside steps, had no recording"


def test_a_wider_gap_takes_the_nearest_level(host):
    target = host(sigmas=(1.0, 0.78, 0.55))
    with pytest.raises(TransferError, match="widen its gap"):
        target.run(TARGET, Transfer(record(host)))
    transfer = Transfer(record(host), gap=0.06)
    target.run(TARGET, transfer)
    assert transfer.report == Report(18, 18)


def test_a_level_visited_twice_takes_the_map_of_the_same_visit(host):
    evaluations = (1.0, 0.8, 0.8, 0.5, 0.5)
    recorder = Recorder()
    stock = host().run(SOURCE, recorder, evaluations=evaluations)
    got = host().run(SOURCE, Transfer(recorder.store), evaluations=evaluations)
    assert all(torch.equal(stock[key], value) for key, value in got.items())


def test_nothing_is_kept_after_a_run(host):
    class Watcher(Interceptor):
        pass

    transfer = Transfer(record(host))
    host().run(TARGET, transfer, Watcher())
    assert not any(transfer.wants(site) for site in host().sites())

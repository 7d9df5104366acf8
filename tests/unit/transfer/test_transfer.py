"""Stored and live transfer against a float64 implementation that materialises every map."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from vdit_core.call import Interceptor, TokenGrid
from vdit_core.recording.recorder import Recorder
from vdit_core.recording.store import Evaluation, Key
from vdit_core.selection import Indices, LayerMask, Selection, SelectionError
from vdit_core.transfer import LiveTransfer, Transfer, TransferConfig, TransferError, TransferReport

SOURCE, TARGET = 1, 2


def record(host, selection: Selection | None = None, **options):
    recorder = Recorder(selection)
    host(**options).run(SOURCE, recorder)
    return recorder.store


def expected(reference, target, where: TransferConfig, source_of):
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
    TransferConfig(),
    TransferConfig(LayerMask("1")),
    TransferConfig(LayerMask("0:0.25, 2:0.8")),
    TransferConfig(heads=Indices("1")),
    TransferConfig(LayerMask("0-1:0.5"), heads=Indices("0")),
    TransferConfig(steps=Indices("1-2")),
    TransferConfig(branches="uncond"),
    TransferConfig(LayerMask("all:0.3"), Indices("1"), Indices("0%-34%"), "cond"),
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

    for key, value in expected(reference, target, TransferConfig(), source_of).items():
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


@pytest.mark.parametrize("where", [TransferConfig(), *WHERES[3:]], ids=str)
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
    """One softmax a layer and branch for the source and its takers; whoever stands behind sees every row."""
    target = host(samples=4, batched=batched, layers=1, sigmas=(1.0,))
    calls, seen = [], []

    def backend(q, k, v):
        calls.append((len(q), v.shape[-1] // q.shape[-1]))
        return F.scaled_dot_product_attention(q, k, v)

    backend.any_width = True

    class Watcher(Interceptor):
        def __call__(self, call, proceed):
            seen.append((call.site.rows[0].branch, call.q.shape, call.v.shape))
            return proceed(call)

    live = LiveTransfer(masks=[LayerMask("0"), LayerMask("0"), LayerMask("none")])
    target.run(TARGET, live, Watcher(), backend=backend)
    assert calls == 2 * [(1, 3), (1, 1)]
    assert sorted(seen) == [(branch, (4, 2, 18, 8), (4, 2, 18, 8)) for branch in ("cond", "uncond")]
    calls.clear()
    target.run(TARGET, LiveTransfer(), backend=backend)
    assert calls == 2 * [(1, 4)], "nothing but one map where all take it"


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
    [
        TransferConfig(LayerMask("none")),
        TransferConfig(LayerMask("all:0")),
        TransferConfig(heads=Indices("none")),
        TransferConfig(steps=Indices("none")),
    ],
    ids=str,
)
def test_strength_zero_and_empty_selections_are_stock_bit_for_bit(host, where):
    stock = host(samples=2).run(TARGET)
    for transfer in (Transfer(record(host), where), LiveTransfer(where)):
        got = host(samples=2).run(TARGET, transfer)
        assert all(torch.equal(stock[key], value) for key, value in got.items())
        assert str(transfer.report) == "replaced 0 of 0 calls"


def test_int8_is_close(host):
    recorder = Recorder(quantization="int8")
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


@pytest.mark.parametrize("strength", [1, 0.5])
@pytest.mark.parametrize("batched", [False, True])
def test_a_recorder_behind_a_live_transfer_keeps_the_sources_maps_for_all(host, batched, strength):
    target, recorder = host(samples=3, batched=batched), Recorder()
    target.run(TARGET, LiveTransfer(TransferConfig(LayerMask(f"1:{strength}"))), recorder)
    for site in target.sites():
        q, k, _ = target.tensors(TARGET, site)
        for branch in ("cond", "uncond"):
            rows = [i for i, row in enumerate(site.rows) if row.branch == branch]
            if not rows:
                continue
            key = Key(Evaluation(site.sigma), branch, site.layer)
            for own, kept in zip((q, k), recorder.store.get(key, torch.device("cpu"), q.dtype), strict=True):
                wanted = own[rows[:1]].expand(3, -1, -1, -1) if site.layer == 1 else own[rows]
                assert torch.equal(kept, wanted)


A, B = TransferConfig(LayerMask("all:0.5"), heads=Indices("0")), TransferConfig(heads=Indices("1"))
COND, UNCOND = TransferConfig(LayerMask("all:0.5"), branches="cond"), TransferConfig(branches="uncond")


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("wheres", [(A, B), (B, A), (COND, UNCOND), (UNCOND, COND)], ids=str)
@pytest.mark.parametrize("kind", ["stored", "live"])
def test_transfers_of_different_heads_or_branches_leave_each_other_alone(host, kind, wheres, batched):
    """Whatever their strengths: each head and branch is what its own transfer alone makes of it."""
    target = host(samples=2, batched=batched, dtype=torch.float64)
    store = record(host)

    def transfer(where):
        return Transfer(store, where) if kind == "stored" else LiveTransfer(where)

    both = target.run(TARGET, *map(transfer, wheres))
    alone = {where: target.run(TARGET, transfer(where)) for where in wheres}
    for key, value in both.items():
        for head in range(2):
            (owner,) = (w for w in wheres if w.branches in ("all", key[3]) and w.heads.text in ("all", str(head)))
            torch.testing.assert_close(value[head], alone[owner][key][head], rtol=1e-12, atol=1e-12, msg=str(key))


@pytest.mark.parametrize("strength", [0.3, 1])
def test_the_later_of_two_transfers_has_the_last_word(host, strength):
    """As in the graph: the second node acts on what the first left, so at full strength it replaces it wholly."""
    first, second = record(host), Recorder()
    host().run(3, second)
    target = host(dtype=torch.float64)
    both = target.run(TARGET, Transfer(first, TransferConfig(LayerMask(f"all:{strength}"))), Transfer(second.store))
    alone = target.run(TARGET, Transfer(second.store))
    for key, value in both.items():
        torch.testing.assert_close(value, alone[key], rtol=1e-12, atol=1e-12)


def test_a_transfer_inside_a_live_one_does_not_share_its_map(host):
    """What is said to be shared holds of the live transfer's own queries and keys, not of those put in after it."""
    sources = record(host, samples=2)
    target = host(samples=2, dtype=torch.float64)
    both, alone = target.run(TARGET, LiveTransfer(), Transfer(sources)), target.run(TARGET, Transfer(sources))
    for key, value in both.items():
        torch.testing.assert_close(value, alone[key], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 4}, "model of 3 layers x 2 heads x 8; this one has 4 layers"),
        ({"heads": 3}, "this one has 3 layers x 3 heads"),
        ({"head_dim": 16}, "2 heads x 16"),
        ({"grid": TokenGrid(2, 3, 4)}, "Source: 3 steps, 2 x 3 x 3 tokens. Target: 2 x 3 x 4 tokens"),
        ({"grid": TokenGrid(2, 3, 3, prefix=2)}, r"2 x 3 x 3 tokens \+ 2 tokens of a reference"),
        ({"kind": "wan i2v 36 -> 16"}, "of kind wan t2v 16 -> 16; this one is wan i2v 36 -> 16"),
        ({"sigmas": (1.0, 0.9, 0.5)}, r"noise levels 1.000, 0.800, 0.500. Target: noise levels 1.000, 0.900, 0.500"),
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
        (Selection(layers=Indices("0-1")), TransferConfig(LayerMask("2")), "layer 2 was not recorded"),
        (Selection(heads=Indices("0")), TransferConfig(), r"Heads \[1\] were not recorded"),
        (Selection(steps=Indices("0-1")), TransferConfig(steps=Indices("2")), "step 2 was not recorded"),
        (Selection(branches="cond"), TransferConfig(branches="uncond"), "the negative prompt was not recorded"),
        (Selection(layers=Indices("none")), TransferConfig(), "holds no queries and keys"),
    ],
)
def test_a_transfer_of_nothing_that_was_recorded_is_refused(host, selection, where, message):
    with pytest.raises(TransferError, match=message):
        host().run(TARGET, Transfer(record(host, selection), where))


def test_a_part_of_the_recording_serves_a_part_of_the_target(host):
    store = record(host, Selection(Indices("1"), Indices("0"), Indices("1"), "cond"))
    where = TransferConfig(LayerMask("1"), Indices("0"), Indices("1"), "cond")
    transfer = Transfer(store, where)
    host().run(TARGET, transfer)
    assert transfer.report == TransferReport(1, 1)


def test_masks_steps_and_branches_that_are_not_there_are_refused(host):
    store = record(host)
    unknown = [
        TransferConfig(LayerMask("3")), TransferConfig(LayerMask("all", made_for=30)),
        TransferConfig(branches="middle"), TransferConfig(heads=Indices("5")), TransferConfig(steps=Indices("7")),
    ]  # fmt: skip
    for where in unknown:
        with pytest.raises(SelectionError):
            host().run(TARGET, Transfer(store, where))


def test_batches_that_do_not_match_are_refused(host):
    with pytest.raises(TransferError, match="holds 2 samples, this run has 3"):
        host(samples=3).run(TARGET, Transfer(record(host, samples=2)))
    with pytest.raises(TransferError, match="needs a batch of the source and at least one target"):
        host().run(TARGET, LiveTransfer())


def test_live_transfer_from_other_noise_is_refused(host):
    with pytest.raises(TransferError, match="start from other noise than the source"):
        host(samples=2, one_noise=False).run(TARGET, LiveTransfer())
    host(samples=2, one_noise=False).run(TARGET, LiveTransfer(TransferConfig(LayerMask("none"))))


def test_a_model_of_unknown_kind_is_taken_on_trust(host):
    host(kind="").run(TARGET, Transfer(record(host)))
    host().run(TARGET, Transfer(record(host, kind="")))


@pytest.mark.parametrize("absent", [[(0, "uncond")], [(0, "cond"), (2, "uncond")]], ids=str)
def test_prompts_may_be_scheduled_for_some_steps(host, absent):
    """What does not come is neither asked of the recording nor counted."""
    options = {"absent": frozenset(absent), "layers": 2}
    recorder = Recorder()
    stock = host(**options).run(SOURCE, recorder)
    assert len(recorder.store) == 2 * (6 - len(absent))
    transfer = Transfer(recorder.store)
    again = host(**options).run(SOURCE, transfer)
    assert all(torch.equal(stock[key], value) for key, value in again.items())
    assert transfer.report == TransferReport(2 * (6 - len(absent)), 2 * (6 - len(absent)))
    live = LiveTransfer()
    host(samples=2, **options).run(SOURCE, live)
    assert live.report == transfer.report
    whole = Transfer(recorder.store)
    host(layers=2).run(TARGET, whole)
    assert (whole.report.replaced, whole.report.expected) == (2 * (6 - len(absent)), 12)
    assert "the source's run did not compute the " in whole.report.verdict().text


def test_a_sampler_that_ignores_its_steps_is_named(host):
    recorder = Recorder()
    host().run(SOURCE, recorder, evaluations=(1.0, 0.93, 0.71, 0.62))
    with pytest.raises(TransferError, match=r"as dpm_fast and dpm_adaptive do: .*another one"):
        host().run(SOURCE, Transfer(recorder.store))


def test_levels_inside_a_step_run_stock_and_are_counted(host):
    evaluations = (1.0, 0.9, 0.8, 0.5)
    stock = host().run(TARGET, evaluations=evaluations)
    transfer = Transfer(record(host))
    got = host().run(TARGET, transfer, evaluations=evaluations)
    same = {key[1] for key, value in got.items() if torch.equal(stock[key], value)}
    assert same == {0.9}
    assert transfer.report == TransferReport(18, 18, missed=6)
    assert str(transfer.report) == "replaced 18 of 18 calls; 6 more, inside steps, had no recording"


def test_a_wider_gap_takes_the_nearest_level(host):
    target = host(sigmas=(1.0, 0.78, 0.55))
    with pytest.raises(TransferError, match="widen its gap"):
        target.run(TARGET, Transfer(record(host)))
    transfer = Transfer(record(host), gap=0.06)
    target.run(TARGET, transfer)
    assert transfer.report == TransferReport(18, 18)


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

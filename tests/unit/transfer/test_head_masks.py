"""Transfers under a mask of layers and heads, against a float64 implementation that materialises every map."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_host import SyntheticHost, same

from vdit_core.head_mask import HeadMask
from vdit_core.recording.recorder import Recorder
from vdit_core.recording.store import Key
from vdit_core.selection import Indices, LayerMask, Selection, SelectionError
from vdit_core.transfer import LiveTransfer, Transfer, TransferConfig, TransferError, TransferReport

SOURCE, TARGET, LAYERS, HEADS = 1, 2, 3, 4
FLOAT64 = {"layers": LAYERS, "heads": HEADS, "dtype": torch.float64}


def record(selection: Selection | None = None, **options):
    recorder = Recorder(selection)
    SyntheticHost(layers=LAYERS, heads=HEADS, **options).run(SOURCE, recorder)
    return recorder.store


def expected(reference, target, where: TransferConfig, source_of):
    """Head for head (1 - s) of the own map and s of the source's, on the target's own values."""
    run = target.describe()
    mask, steps = where.layers.resolve(LAYERS, HEADS), where.steps.resolve(run.steps, "step")
    chosen, outputs = where.heads.resolve(HEADS, "head"), {}
    for site in target.sites():
        q, k, v = target.tensors(TARGET, site)
        for i, row in enumerate(site.rows):
            output = reference(q[i], k[i], v[i])
            if site.layer in mask and site.step in steps and where.branches in ("all", row.branch):
                source = reference(*source_of(site, i), v[i])
                for head in chosen:
                    strength = mask[site.layer][head]
                    output[head] = (1 - strength) * output[head] + strength * source[head]
            outputs[site.layer, site.sigma, site.visit, row.branch, row.sample] = output
    return outputs


WHERES = {
    "one head": TransferConfig(HeadMask("1@2")),
    "heads at full strength": TransferConfig(HeadMask("0@0-1, 2@3")),
    "half a head": TransferConfig(HeadMask("1@0:0.5")),
    "several strengths in a layer": TransferConfig(HeadMask("0@0, 0@1:0.25, 0@2:0.7, 2@all:0.3, 2@0:1")),
    "all but a head": TransferConfig(HeadMask("all, 1@1:0")),
    "every strength, no head left out": TransferConfig(HeadMask("all:0.4, all@0, all@2:0.8")),
    "with other heads chosen": TransferConfig(HeadMask("0@0-1, 1:0.5, 2@3"), Indices("1-2")),
    "a step and a prompt": TransferConfig(HeadMask("all@1:0.5, 1@1"), steps=Indices("1"), branches="cond"),
}
each_where = pytest.mark.parametrize("where", [pytest.param(where, id=name) for name, where in WHERES.items()])


@each_where
@pytest.mark.parametrize("batched", [False, True])
def test_stored_transfer_is_exact(reference, where, batched):
    store = record()
    target = SyntheticHost(samples=2, batched=batched, **FLOAT64)
    transfer = Transfer(store, where)
    got = target.run(TARGET, transfer)

    def source_of(site, i):
        key = Key(store.find(site.sigma), site.rows[i].branch, site.layer)
        return (x[0] for x in store.get(key, torch.device("cpu"), torch.float64))

    for key, value in expected(reference, target, where, source_of).items():
        torch.testing.assert_close(got[key], value, rtol=1e-9, atol=1e-9, msg=str(key))
    assert transfer.report.replaced == transfer.report.expected > 0


@each_where
@pytest.mark.parametrize("batched", [False, True])
def test_live_transfer_is_exact_and_as_the_stored_one(reference, where, batched):
    target = SyntheticHost(samples=3, batched=batched, **FLOAT64)
    live = LiveTransfer(where)
    got = target.run(TARGET, live)

    def source_of(site, i):
        q, k, _ = target.tensors(TARGET, site)
        first = next(j for j, r in enumerate(site.rows) if r.branch == site.rows[i].branch and r.sample == 0)
        return q[first], k[first]

    for key, value in expected(reference, target, where, source_of).items():
        torch.testing.assert_close(got[key], value, rtol=1e-9, atol=1e-9, msg=str(key))
    recorder = Recorder()
    replace(target, samples=1, dtype=torch.float32).run(TARGET, recorder)  # sample 0 alone, the same numbers
    stored = Transfer(recorder.store, where)
    for key, value in target.run(TARGET, stored).items():
        torch.testing.assert_close(got[key], value, rtol=1e-12, atol=1e-12, msg=str(key))
    assert live.report == stored.report


MASKS = [HeadMask("1@0"), LayerMask("all"), HeadMask("1@0, 1@1:0.5, 0"), LayerMask("1:0.5"), HeadMask("none")]


@pytest.mark.parametrize("where", [TransferConfig(), TransferConfig(heads=Indices("0-2"))], ids=["all", "some"])
@pytest.mark.parametrize("batched", [False, True])
def test_a_mask_for_each_target_is_what_each_mask_gives_alone(where, batched):
    target = SyntheticHost(samples=1 + len(MASKS), batched=batched, **FLOAT64)
    got = target.run(TARGET, LiveTransfer(where, MASKS))
    for n, mask in enumerate(MASKS, start=1):
        alone = target.run(TARGET, LiveTransfer(replace(where, layers=mask)))
        for key in (key for key in got if key[-1] == n):
            torch.testing.assert_close(got[key], alone[key], rtol=1e-12, atol=1e-12, msg=f"{mask} at {key}")


strength = st.sampled_from([0, 0.25, 0.5, 1])


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.integers(0, LAYERS - 1), strength), st.sampled_from(["all", "0", "1-3"]), st.booleans())
def test_a_layer_mask_as_head_mask_is_the_same_bit_for_bit(strengths, heads, batched):
    layers, store = LayerMask.of(strengths), record()
    target = SyntheticHost(layers=LAYERS, heads=HEADS, samples=3, batched=batched)
    for transfer in (partial(Transfer, store), LiveTransfer):
        given, same_as = (
            transfer(TransferConfig(mask, Indices(heads))) for mask in (layers, HeadMask.of_layers(layers))
        )
        assert same(target.run(TARGET, given), target.run(TARGET, same_as))
        assert given.report == same_as.report


def test_whole_layers_of_a_head_mask_share_their_map():
    """The fast way of layer masks stays: one softmax for the source and all who take all of its heads."""
    target, calls = SyntheticHost(layers=1, heads=HEADS, samples=4, sigmas=(1.0,), branches=("cond",)), []

    def backend(q, k, v):
        calls.append((len(q), v.shape[-1] // q.shape[-1]))
        return F.scaled_dot_product_attention(q, k, v)

    backend.any_width = True
    for mask in (LayerMask("0"), HeadMask("0@all"), HeadMask("0@0-3")):
        live = LiveTransfer(TransferConfig(mask))
        target.run(TARGET, live, backend=backend)
        assert calls == [(1, 4)]
        calls.clear()
    target.run(TARGET, LiveTransfer(masks=[HeadMask("0"), HeadMask("0@1"), HeadMask("none")]), backend=backend)
    assert calls == [(1, 2), (2, 1)], "only rows that take all heads"


def test_a_host_may_leave_out_queries_and_keys_only_where_all_heads_are_replaced():
    target = SyntheticHost(heads=HEADS, samples=2)
    site = target.sites()[0]
    for text, rows in (("0", (0, 0)), ("0@0-3", (0, 0)), ("0@0-2", None), ("0, 0@1:0.5", None), ("1", None)):
        live = LiveTransfer(TransferConfig(HeadMask(text)))
        live.begin(target.describe())
        assert live.maps_from(site) == rows, text


@pytest.mark.parametrize("text", ["none", "all:0", "all@0:0", "1@0, 1@0:0"])
def test_a_head_mask_that_is_off_is_stock_bit_for_bit(text):
    target, where = SyntheticHost(layers=LAYERS, heads=HEADS, samples=2), TransferConfig(HeadMask(text))
    for transfer in (Transfer(record(), where), LiveTransfer(where), LiveTransfer(masks=[HeadMask(text)])):
        assert same(target.run(TARGET, transfer), target.run(TARGET))
        assert "no layer has a strength above 0" in transfer.report.verdict().text


def test_heads_that_the_mask_and_the_selection_do_not_share_are_told():
    where = TransferConfig(HeadMask("1@0"), Indices("1-3"))
    target = SyntheticHost(layers=LAYERS, heads=HEADS, samples=2)
    for transfer in (Transfer(record(), where), LiveTransfer(where)):
        assert same(target.run(TARGET, transfer), target.run(TARGET))
        assert "the chosen heads have no strength above 0" in transfer.report.verdict().text


def test_only_heads_that_the_mask_uses_must_have_been_recorded():
    store = record(Selection(heads=Indices("1-2")))
    target = SyntheticHost(layers=LAYERS, heads=HEADS)
    transfer = Transfer(store, TransferConfig(HeadMask("0@1, 2@2:0.5, 1@0:0")))
    target.run(TARGET, transfer)
    assert transfer.report == TransferReport(12, 12)
    with pytest.raises(TransferError, match=r"Heads \[0, 3\] were not recorded; the store holds heads \[1, 2\]"):
        target.run(TARGET, Transfer(store, TransferConfig(HeadMask("0@1, 2@0, 1@3:0.1"))))
    target.run(TARGET, Transfer(store, TransferConfig(HeadMask("all"), Indices("2"))))


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (HeadMask("3@0"), "Layer 3 in '3' is out of range"),
        (HeadMask("0@4"), "Head 4 in '4' is out of range: there are 4 heads, 0 to 3"),
        (HeadMask("all", layers=30), "made for a model of 30 layers; this one has 3"),
        (HeadMask("all", heads=12), "made for a model of 12 heads; this one has 4"),
    ],
    ids=str,
)
def test_masks_of_other_models_are_refused(mask, said):
    target, store = SyntheticHost(layers=LAYERS, heads=HEADS, samples=2), record()
    for transfer in (
        Transfer(store, TransferConfig(mask)),
        LiveTransfer(TransferConfig(mask)),
        LiveTransfer(masks=[mask]),
    ):
        with pytest.raises(SelectionError, match=said):
            target.run(TARGET, transfer)

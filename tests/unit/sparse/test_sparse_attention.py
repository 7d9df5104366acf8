"""Sparse attention as an editor: where it acts and where not, how it goes with other editors, what it reports."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

from vdit_core.attention.reference import masked_attention
from vdit_core.call import ModelSignature, TokenGrid
from vdit_core.head_mask import HeadMask
from vdit_core.recording.recorder import Recorder
from vdit_core.selection import LayerMask, SelectionError
from vdit_core.sparse import backend
from vdit_core.sparse.config import SparseConfig
from vdit_core.sparse.kernels.gathered import Gathered
from vdit_core.sparse.profile import ProfileError, SparseProfile
from vdit_core.sparse.report import RunLog, SparseCall, SparseReport
from vdit_core.sparse.sparse_attention import SparseAttention
from vdit_core.transfer import LiveTransfer, Transfer, TransferConfig

GRID = TokenGrid(3, 6, 6)


def everywhere(method: str = "exact top-k", density: float = 0.3, **changes) -> SparseConfig:
    """SparseConfig under which only the density decides."""
    return SparseConfig(method, density, **({"dense_first": 0.0, "minimum_tokens": 0, "if_slower": "sparse"} | changes))


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture
def stock(host):
    return host(grid=GRID).run(1)


@pytest.mark.parametrize(
    "settings",
    [
        everywhere(density=1.0),
        everywhere("block top-k", density=1.0),
        everywhere(dense_layers=LayerMask("all")),
        everywhere(dense_first=1.0),
        everywhere(dense_first=0.4, dense_last=0.6),
        everywhere(minimum_tokens=GRID.tokens + 1),
    ],
)
def test_nothing_left_out_is_the_stock_result_bit_for_bit(host, stock, settings):
    assert same(host(grid=GRID).run(1, SparseAttention(settings)), stock)


def test_it_is_exact_masking_where_it_acts(host, stock):
    synthetic = host(grid=GRID)
    settings = everywhere(dense_layers=LayerMask("1"), dense_first=0.3, temperature=0.8)
    found = synthetic.run(1, SparseAttention(settings))
    for site in synthetic.sites():
        q, k, v = synthetic.tensors(1, site)
        expected = masked_attention(q, k, v, torch.full((2,), 0.3), temperature=0.8)[0]
        for row, value in zip(site.rows, expected, strict=True):
            key = (site.layer, site.sigma, site.visit, row.branch, row.sample)
            acts = site.layer != 1 and site.step > 0
            torch.testing.assert_close(found[key], value if acts else stock[key])
            assert acts != torch.equal(found[key], stock[key])


@pytest.mark.parametrize("method", ["block top-k", "block top-p", "window", "radial", "exact top-p"])
def test_every_method_runs_and_says_what_it_computed(host, stock, method):
    editor = SparseAttention(everywhere(method, 0.5))
    found = host(grid=GRID).run(1, editor)
    assert not same(found, stock)
    assert all(torch.isfinite(value).all() for value in found.values())
    report = editor.report
    assert report.sparse == report.expected == report.of == 3 * 3 * 2
    assert 0 < report.density < 1
    assert report.overall == pytest.approx(report.density)


def test_the_report_counts_dense_calls_too(host):
    editor = SparseAttention(everywhere(density=0.5, dense_layers=LayerMask("0"), dense_last=0.3))
    host(grid=GRID, batched=True).run(1, editor)
    report = editor.report
    assert (report.sparse, report.expected, report.of) == (8, 8, 18)
    assert report.density == pytest.approx(0.5)
    assert report.overall == pytest.approx(1 - 0.5 * 8 / 18)
    assert str(report).startswith("computed 78% of all maps (8 of 18 calls at 50%)")


def profile(model: ModelSignature, method: str = "exact top-k", **changes) -> SparseProfile:
    """Layer 0 is strict, the others tolerant."""
    strict, tolerant = ((9.0, 8.0, 7.0),) * model.heads, ((0.1, 1e-3, 1e-4),) * model.heads
    fields = {
        "model": model,
        "method": method,
        "density": 0.5,
        "levels": (0.1, 0.4, 0.8),
        "errors": (strict, *((tolerant,) * (model.layers - 1))),
        "temperature": (((1.0, 1.0, 1.0),) * model.heads,) * model.layers,
    }
    return SparseProfile(**(fields | changes))


def test_a_profile_spends_the_mean(host):
    synthetic = host(grid=GRID)
    made = profile(synthetic.describe().model)
    places = everywhere(density=0.5, profile=made).resolve(synthetic.describe())
    assert places.density.mean() == pytest.approx(0.5)
    assert (places.density[0] == 1).all()
    editor = SparseAttention(everywhere(density=0.5, profile=made))
    synthetic.run(1, editor)
    assert editor.report.expected == 2 * 3 * 2  # layer 0 is whole
    assert editor.report.overall == pytest.approx(0.5, abs=0.02)


def test_a_dense_layer_at_a_strength_goes_that_part_of_the_way(host):
    places = everywhere(density=0.2, dense_layers=LayerMask("0:0.5, 1")).resolve(host().describe())
    assert places.density[:, 0].tolist() == pytest.approx([0.6, 1.0, 0.2])
    assert places.sparse_layers() == {0, 2}


def test_heads_may_be_dense_alone(host):
    settings = everywhere(density=0.2, dense_layers=HeadMask("0@1, 1:0.5, 1@0, 2@0:0.25"), temperature=0.8)
    places = settings.resolve(host().describe())
    assert places.density.flatten().tolist() == pytest.approx([0.2, 1.0, 1.0, 0.6, 0.4, 0.2])
    assert (places.temperature == 1).flatten().tolist() == [False, True, True, False, False, False]
    synthetic = host(grid=GRID)
    stock, got = synthetic.run(1), synthetic.run(1, SparseAttention(settings))
    for (layer, *_), value, plain in ((key, got[key], stock[key]) for key in got):
        for head in (0, 1):
            dense = (layer, head) in {(0, 1), (1, 0)}
            assert torch.allclose(value[head], plain[head], atol=1e-5) == dense, (layer, head)


@pytest.mark.parametrize("text", ["none", "0, 2:0.5", "all"])
def test_a_layer_mask_as_head_mask_is_the_same_sparse_attention(host, text):
    synthetic, layers = host(grid=GRID), LayerMask(text)
    given, same_as = (
        synthetic.run(1, SparseAttention(everywhere(dense_layers=mask)))
        for mask in (layers, HeadMask.of_layers(layers))
    )
    assert all(torch.equal(given[key], value) for key, value in same_as.items())


def test_a_profile_of_another_model_or_method_is_refused_before_anything_is_computed(host):
    model = host().describe().model
    with pytest.raises(ProfileError, match="measured on a model of 4 layers"):
        host().run(1, SparseAttention(everywhere(profile=profile(replace(model, layers=4)))))
    with pytest.raises(ProfileError, match="for the method 'exact top-k', not 'window'"):
        host().run(1, SparseAttention(everywhere("window", profile=profile(model))))
    with pytest.raises(SelectionError, match="Layer 9"):
        host().run(1, SparseAttention(everywhere(dense_layers=LayerMask("9"))))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"method": "blocks"}, "no method 'blocks'"),
        ({"density": 1.2}, "density is 1.2"),
        ({"dense_first": -0.1}, "dense_first is -0.1"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"if_slower": "maybe"}, "if_slower is 'maybe'"),
    ],
)
def test_settings_that_cannot_be_meant_are_named(changes, says):
    with pytest.raises(ValueError, match=says):
        SparseConfig(**changes)


def test_samples_may_keep_differently(host):
    keeps = [torch.full((3, 2), value) for value in (1.0, 0.2, 0.6)]
    together = host(grid=GRID, samples=3).run(1, SparseAttention(everywhere(), keeps))
    for sample, keep in enumerate((1.0, 0.2, 0.6)):
        alone = host(grid=GRID, samples=3).run(1, SparseAttention(everywhere(density=keep)))
        for key in alone:
            if key[-1] == sample:
                torch.testing.assert_close(together[key], alone[key])
    with pytest.raises(ValueError, match=r"shape \(3, 3, 2\); this run needs \(1, 3, 2\)"):
        host(grid=GRID).run(1, SparseAttention(everywhere(), keeps))


@pytest.mark.parametrize("sparse_first", [True, False])
def test_a_transfer_goes_through_it_in_either_order(host, sparse_first):
    """The source's map, masked, over the target's values."""
    synthetic = host(grid=GRID)
    recorder = Recorder()
    synthetic.run(1, recorder)
    editors = [Transfer(recorder.store), SparseAttention(everywhere())]
    found = synthetic.run(2, *(reversed(editors) if sparse_first else editors))
    for site in synthetic.sites():
        (q, k, _), (_, _, v) = synthetic.tensors(1, site), synthetic.tensors(2, site)
        expected = masked_attention(q, k, v, torch.full((2,), 0.3))[0]
        for row, value in zip(site.rows, expected, strict=True):
            torch.testing.assert_close(found[site.layer, site.sigma, 0, row.branch, row.sample], value)


@pytest.mark.parametrize("method", ["exact top-k", "block top-k"])
@pytest.mark.parametrize("sparse_first", [True, False])
def test_a_live_transfer_goes_through_it(host, sparse_first, method):
    """Every row: the source's map, masked, over its own values."""
    synthetic = host(grid=GRID, samples=3)
    editors = [LiveTransfer(TransferConfig(LayerMask("0, 2:0.5"))), SparseAttention(everywhere(method))]
    found = synthetic.run(1, *(reversed(editors) if sparse_first else editors))
    alone = synthetic.run(1, SparseAttention(everywhere(method)))
    for key, value in found.items():
        if key[0] == 1 or key[-1] == 0:  # no transfer in this layer, or the source itself
            torch.testing.assert_close(value, alone[key])
    for site in synthetic.sites():
        if site.layer == 0 and method == "exact top-k":
            q, k, v = synthetic.tensors(1, site)
            source = torch.zeros(3, dtype=torch.long)
            expected = masked_attention(q[source], k[source], v, torch.full((2,), 0.3))[0]
            for row, value in zip(site.rows, expected, strict=True):
                torch.testing.assert_close(found[0, site.sigma, 0, row.branch, row.sample], value)


def test_a_recorder_sees_the_same(host):
    plain, watched = Recorder(), Recorder()
    host(grid=GRID).run(1, plain)
    host(grid=GRID).run(1, watched, SparseAttention(everywhere()))
    assert len(plain.store) == len(watched.store)


def test_slower_is_dense_unless_it_is_wanted(host, stock, monkeypatch, caplog):
    monkeypatch.setattr(backend._autotuner, "run", lambda *_: (3.0, 1.0))
    with caplog.at_level(logging.WARNING):
        editor = SparseAttention(everywhere("block top-k", if_slower="dense"))
        found = host(grid=GRID).run(1, editor)
    assert same(found, stock)
    assert editor.report.sparse == 0
    assert "gathered blocks would take 3.0 times the dense attention's time" in str(editor.report)
    assert len([one for one in caplog.records if "sparse attention" in one.message]) == 1, "said more than once"
    assert not same(host(grid=GRID).run(1, SparseAttention(everywhere("block top-k"))), stock)


def test_faster_is_reported_with_the_time_saved(host, monkeypatch):
    monkeypatch.setattr(backend._autotuner, "run", lambda *_: (1.0, 100.0))
    editor = SparseAttention(everywhere("block top-k", if_slower="dense"))
    host(grid=GRID).run(1, editor)
    assert editor.report.dense_seconds == 100 * 18
    assert "by gathered blocks, " in str(editor.report)
    assert "x as fast as dense, 1" in str(editor.report)


class Rounded(Gathered):
    """Faster, and off by this share of the output."""

    name = "rounded"

    def __init__(self, off: float) -> None:
        self.off, self.calls = off, 0

    def __call__(self, *call):
        self.calls += 1
        return super().__call__(*call) * (1 + self.off)


@pytest.mark.parametrize(("off", "taken"), [(1e-4, "rounded"), (10.0, "gathered blocks")])
def test_rounding_is_taken_where_it_changes_less_than_what_is_left_out(host, monkeypatch, off, taken):
    fast = Rounded(off)
    monkeypatch.setattr(backend, "kernels_for", lambda *_: (Gathered(), fast))
    monkeypatch.setattr(backend._autotuner, "run", lambda *_: (2.0, 1.0, 3.0))
    editor, exact = (SparseAttention(everywhere("block top-k", 0.5)) for _ in range(2))
    found = host(grid=GRID).run(1, editor)
    assert editor.report.kernel == taken
    assert editor.report.sparse == 18
    assert fast.calls == (18 if taken == "rounded" else 3), "else only each layer's first call tries it"
    monkeypatch.setattr(backend, "kernels_for", lambda *_: (Gathered(),))
    monkeypatch.setattr(backend._autotuner, "run", lambda *_: (2.0, 3.0))
    expected = host(grid=GRID).run(1, exact)
    for key, value in found.items():
        torch.testing.assert_close(value, expected[key] * (1 + off * (taken == "rounded")))


def test_both_kernels_of_a_run_are_told():
    log, report = RunLog(), SparseReport()
    log.calls += [SparseCall(1, name, 0.5, 1.0, (0.0, 0.1)) for name in ("a", "a", "a", "b")]
    log.sum_up(report)
    assert report.kernel == "a and b (25% of the calls)"


def test_it_leaves_a_map_to_another_sparse_tool(host, stock, monkeypatch):
    synthetic = host(grid=GRID)

    class Elsewhere(SparseAttention):
        def __call__(self, call, proceed):
            return super().__call__(replace(call, sparse_elsewhere="Model Sparse Attention"), proceed)

    editor = Elsewhere(everywhere())
    assert same(synthetic.run(1, editor), stock)
    assert "left to Model Sparse Attention" in str(editor.report)


def test_small_maps_are_dense_and_said_to_be(host):
    editor = SparseAttention(everywhere(minimum_tokens=4096))
    host(grid=GRID).run(1, editor)
    assert "dense: 108 tokens are fewer than the minimum of 4096" in str(editor.report)


def test_an_interrupted_run_leaves_nothing_behind(host):
    def broken(q, k, v):
        raise RuntimeError("interrupted")

    editor = SparseAttention(everywhere("block top-k"))
    with pytest.raises(RuntimeError, match="interrupted"):
        host(grid=GRID).run(1, editor, backend=broken)
    assert editor._places is None
    assert editor._log.calls == []
    assert host(grid=GRID).run(1, editor)

"""Sinks: what is measured of keys, planted sinks that must be found, and what takes them away."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vdit_core.attention.biased import attend_biased
from vdit_core.call import ModelSignature, TokenGrid
from vdit_core.recording.recorder import Recorder
from vdit_core.selection import Indices, Selection, SelectionError
from vdit_core.sinks.bias import to_mass
from vdit_core.sinks.code import decode, encode
from vdit_core.sinks.control import ControlError, SinkControl, Targets
from vdit_core.sinks.detect import detect, place
from vdit_core.sinks.measure import measure
from vdit_core.sinks.observer import SinkObserver, from_store, map_sinks
from vdit_core.sinks.plant import PlantedSinks
from vdit_core.sinks.record import SinkRecord

GRID = TokenGrid(3, 6, 6)
LARGE = TokenGrid(4, 32, 32)


def random_maps(seed: int, grid: TokenGrid = GRID, heads: int = 2, dim: int = 16, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, heads, grid.tokens, dim, generator=generator).to(dtype).unbind(0)


def rows(q, k, bias=None):
    """The map written out, float64 (heads, tokens, tokens)."""
    scores = q.double() @ k.double().mT / math.sqrt(q.shape[-1])
    return (scores if bias is None else scores + bias.double()[:, None]).softmax(-1)


@pytest.mark.parametrize("bytes_at_once", [32 * 2**20, 1])
def test_mass_and_participation_are_those_of_the_map(monkeypatch, bytes_at_once):
    monkeypatch.setattr("vdit_core.attention.reference.CHUNK_BYTES", bytes_at_once)
    q, k, _ = random_maps(1)
    bias = torch.randn(2, GRID.tokens)
    for chosen in (None, torch.tensor([3, 50, 51, 99])):
        for one in (None, bias):
            weights = rows(q, k, one) if chosen is None else rows(q, k, one)[:, chosen]
            mass, participation = measure(q, k, chosen, one)
            torch.testing.assert_close(mass.double(), weights.mean(1), rtol=1e-4, atol=1e-7)
            expected = weights.mean(1).square() / weights.square().mean(1)
            torch.testing.assert_close(participation.double(), expected, rtol=1e-3, atol=1e-6)


def test_participation_tells_all_queries_from_one():
    q, k, _ = random_maps(2)
    q[:, :, 0], k[:, :, 0] = 4.0, 0.0
    k[:, 7, 0] = 6.0  # every query looks at key 7
    q[0, :, 1] = q[0, 20] = k[0, 30] = 0
    q[0, 20, 1], k[0, 30, 1] = 30.0, 30.0  # only query 20 looks at key 30
    mass, participation = measure(q, k)
    assert (participation[:, 7] > 0.5).all()
    assert mass[0, 30] * GRID.tokens > 1
    assert participation[0, 30] < 0.1


@given(st.lists(st.floats(0.01, 60_000), min_size=1, max_size=20))
def test_a_byte_keeps_a_ratio_to_four_percent(ratios):
    ratios = torch.tensor(ratios)
    torch.testing.assert_close(decode(encode(ratios)), ratios, rtol=0.0395, atol=0)


def test_what_is_next_to_nothing_is_nothing():
    assert decode(encode(torch.tensor([0.0, 1e-9, 1.0]))).tolist() == [0, 0, 1]


def test_strongest_keys_have_their_norms():
    q, k, v = random_maps(3)
    k[0, 5] *= 0
    k[0, 5, 0] = 40.0
    q[0, :, 0] = 5.0
    found = map_sinks(q, k, v, v)
    assert found.tokens[0, 0] == 5
    assert found.key_norm[0, 0] == pytest.approx(40 / float(k[0].norm(dim=-1).median()), rel=1e-4)
    assert found.value_norm[0, 0] == pytest.approx(float(v[0, 5].norm() / v[0].norm(dim=-1).median()), rel=1e-4)
    assert (found.mass[:, :-1] >= found.mass[:, 1:]).all()


def test_a_head_that_writes_one_direction_is_told_from_one_that_does_not():
    q, k, v = random_maps(4)
    out = v.clone()
    out[0] = torch.ones(16)
    common = map_sinks(q, k, v, out).common
    assert common[0] == pytest.approx(1)
    assert common[1] < 0.1


def planted(host, masses, queries=1024, grid=LARGE, layers=2, heads=2, sigmas=(1.0, 0.5)):
    synthetic = host(layers=layers, heads=heads, head_dim=16, grid=grid, sigmas=sigmas, branches=("cond",))
    observer = SinkObserver(queries=queries)
    synthetic.run(1, PlantedSinks(masses), observer)
    return detect(observer.record)


def test_planted_sinks_are_found_all_and_only_these(host):
    """Recall 1 and quantization 1 for masses from 1 % up at 4,096 tokens, of 1,024 sampled queries; places exact."""
    masses = {(0, 1): {5: 0.01, 2049: 0.3}, (1, 0): {4095: 0.05, 1024: 0.012}, (1, 1): {100: 0.02}}
    findings = planted(host, masses)
    assert findings.grid.tokens == 4096
    found = {(sink.layer, sink.head, sink.token): sink for sink in findings.sinks}
    assert set(found) == {(*head, token) for head, tokens in masses.items() for token in tokens}
    for (layer, head), tokens in masses.items():
        for token, mass in tokens.items():
            assert found[layer, head, token].mass == pytest.approx(mass, rel=0.1)
            assert found[layer, head, token].place == (token // 1024, token // 32 % 32, token % 32)
            assert found[layer, head, token].present == 1
    assert findings.above[0.3] <= findings.above[0.1] <= findings.above[0.03] <= findings.above[0.01] == 0.75
    assert findings.sink_heads() == [(0, 1), (1, 0), (1, 1)]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**20), st.floats(0.012, 0.6), st.integers(0, 1023))
def test_any_planted_sink_is_found(host, seed, mass, token):
    synthetic = host(layers=1, heads=2, head_dim=16, grid=TokenGrid(4, 16, 16), sigmas=(1.0,), branches=("cond",))
    observer = SinkObserver(queries=512)
    synthetic.run(seed, PlantedSinks({(0, 1): {token: max(mass, 24 / 1024)}}), observer)
    assert [(sink.head, sink.token) for sink in detect(observer.record).sinks] == [(1, token)]


def test_maps_without_sinks_have_none(host):
    """No false alarm: random maps, and maps that look at their neighbours only."""
    observer = SinkObserver()
    synthetic = host(layers=3, heads=4, head_dim=16, grid=LARGE, sigmas=(1.0,), branches=("cond",))
    synthetic.run(2, observer)
    assert detect(observer.record).sinks == ()
    angle = torch.arange(LARGE.tokens) * (math.pi / LARGE.tokens)
    k = torch.zeros(1, LARGE.tokens, 16)
    k[0, :, 0], k[0, :, 1] = angle.cos(), angle.sin()
    record = SinkRecord(synthetic.describe(), (0,), None)
    local = map_sinks(400 * k, 10 * k)
    assert float(local.mass[0, 0]) * LARGE.tokens < 16 or float(local.participation[0, 0]) < 0.25
    record.calls = dict.fromkeys(list(observer.record.calls)[:1], local)
    assert detect(record).sinks == ()


def test_observing_changes_nothing_and_asks_for_what_it_needs(host):
    synthetic = host(grid=GRID, samples=2)
    stock = synthetic.run(1)
    observer = SinkObserver(Selection(layers=Indices("0, 2"), heads=Indices("1"), steps=Indices("0-2/2")), sample=1)
    found = synthetic.run(1, observer)
    assert all(torch.equal(found[key], stock[key]) for key in stock)
    record = observer.record
    assert len(record.calls) == 2 * 2 * 2
    assert record.heads == (1,)
    assert record.queries is None
    one = next(iter(record.calls.items()))
    (site,) = (s for s in synthetic.sites() if s.layer == one[0].layer and s.sigma == one[0].evaluation.sigma
               and s.rows[0].branch == one[0].branch)  # fmt: skip
    q, k, _ = synthetic.tensors(1, site)
    mass = rows(q[1, 1:], k[1, 1:]).mean(1)
    torch.testing.assert_close(one[1].mass[0].double(), mass[0, one[1].tokens[0].long()], rtol=1e-4, atol=1e-8)
    with pytest.raises(SelectionError, match="Layer 9"):
        synthetic.run(1, SinkObserver(Selection(layers=Indices("9"))))
    with pytest.raises(ValueError, match="no video 2 in this batch of 2"):
        synthetic.run(1, SinkObserver(sample=2))


def test_a_recording_tells_what_a_run_tells_but_for_values(host):
    synthetic = host(grid=GRID)
    recorder, observer = Recorder(), SinkObserver()
    synthetic.run(1, recorder, observer)
    calls = []
    record = from_store(recorder.store, on_call=lambda: calls.append(1))
    assert len(calls) == len(record.calls) == len(observer.record.calls)
    for key, found in record.calls.items():
        other = observer.record.calls[key]
        assert torch.equal(found.codes, other.codes)
        torch.testing.assert_close(found.key_norm, other.key_norm)
        assert found.value_norm.isnan().all()
        assert found.common.isnan().all()


def test_figures_of_a_findings_table(host):
    findings = planted(host, {(0, 0): {7: 0.9}}, grid=TokenGrid(2, 8, 8, 3, 1), sigmas=(1.0,))
    assert findings.half[0, 0] == 1
    assert findings.half[1, 1] > 10
    assert findings.frames[1].sum() == pytest.approx(1, abs=0.1)
    assert findings.peak[0, 0] == pytest.approx(0.9 * 132, rel=0.1)
    assert place(findings.grid, 2) is None
    assert place(findings.grid, 131) is None
    assert place(findings.grid, 3 + 64 + 9) == (1, 1, 1)
    assert findings.as_json()["sinks"][0]["token"] == 7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_biased_attention_is_the_biased_map(dtype):
    q, k, v = (x[None] for x in random_maps(5, dtype=dtype))
    bias = torch.randn(2, GRID.tokens) * 3
    bias[0, 4] = -math.inf
    expected = rows(q[0], k[0], bias) @ v[0].double()
    found = attend_biased(q, k, v, bias)[0].double()
    assert (found - expected).norm() / expected.norm() < (1e-5 if dtype == torch.float32 else 1e-2)


def test_a_wanted_mass_is_met():
    q, k, _ = (x[None] for x in random_maps(6))
    bias = to_mass(q, k, {1: {3: 0.2, 60: 0.05}})
    mass = rows(q[0], k[0], bias).mean(1)
    assert mass[1, [3, 60]].tolist() == pytest.approx([0.2, 0.05], rel=0.02)
    assert (bias[0] == 0).all()
    with pytest.raises(ValueError, match="head 0 must be above 0 and together below 1"):
        to_mass(q, k, {0: {1: 0.6, 2: 0.5}})


def sinks_of(host, seed=1):
    synthetic = host(grid=GRID, head_dim=16)
    masses = {(1, 0): {40: 0.5}, (2, 1): {7: 0.3, 80: 0.2}}
    observer = SinkObserver()
    synthetic.run(seed, PlantedSinks(masses), observer)
    targets = Targets.of(detect(observer.record), synthetic.describe().model)
    assert targets.tokens == {(1, 0): (40,), (2, 1): (7, 80)}
    return synthetic, PlantedSinks(masses), targets


@pytest.mark.parametrize("action", ["mask", "cap"])
def test_taking_sinks_away_takes_their_mass(host, action):
    synthetic, plant, targets = sinks_of(host)
    observer, control = SinkObserver(), SinkControl(targets, action, cap=0.02)
    synthetic.run(1, plant, control, observer)
    left = detect(observer.record)
    assert left.peak[1, 0] < (0.021 if action == "cap" else 0.015) * GRID.tokens * 2
    assert not {(1, 0, 40), (2, 1, 7), (2, 1, 80)} & {(s.layer, s.head, s.token) for s in left.sinks}
    assert control.changed == 2 * 3 * 2


def test_a_masked_key_gives_nothing(host):
    synthetic, _, targets = sinks_of(host)
    found = synthetic.run(1, SinkControl(targets))
    for site in synthetic.sites():
        q, k, v = synthetic.tensors(1, site)
        for (layer, head), tokens in targets.tokens.items():
            if layer == site.layer:
                left = [i for i in range(GRID.tokens) if i not in tokens]
                expected = rows(q[0, head : head + 1], k[0, head : head + 1][:, left])[0] @ v[0, head, left].double()
                value = found[layer, site.sigma, 0, site.rows[0].branch, 0][head]
                torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("action", ["mean", "skip"])
def test_a_head_gives_its_mean_or_nothing(host, action):
    synthetic, _, targets = sinks_of(host)
    stock, found = synthetic.run(1), synthetic.run(1, SinkControl(targets, action))
    for key, value in found.items():
        for head in (0, 1):
            own = stock[key][head]
            if (key[0], head) in targets.tokens:
                own = own.mean(0, keepdim=True).expand_as(own) if action == "mean" else torch.zeros_like(own)
            torch.testing.assert_close(value[head], own)


def test_controls_are_as_large_and_elsewhere(host):
    _, _, targets = sinks_of(host)
    tokens, heads = targets.random_tokens(3), targets.random_heads(3)
    assert {head: len(t) for head, t in tokens.tokens.items()} == {head: len(t) for head, t in targets.tokens.items()}
    assert all(not set(t) & set(targets.tokens[head]) for head, t in tokens.tokens.items())
    assert len(heads) == len(targets)
    assert not set(heads.tokens) & set(targets.tokens)
    assert targets.random_tokens(3) == tokens != targets.random_tokens(4)


def test_targets_of_another_model_or_grid_are_refused(host):
    synthetic, _, targets = sinks_of(host)
    with pytest.raises(ControlError, match="a grid of 3 x 6 x 6 = 108 tokens; this run has 2 x 3 x 3"):
        host(head_dim=16).run(1, SinkControl(targets))
    other = Targets(ModelSignature(30, 12, 128), GRID, {})
    with pytest.raises(ControlError, match="a model of 30 layers x 12 heads x 128; this run has 3 layers"):
        synthetic.run(1, SinkControl(other))
    with pytest.raises(ValueError, match="no action 'hide'"):
        SinkControl(targets, "hide")
    with pytest.raises(ValueError, match=r"not 1\.5"):
        SinkControl(targets, "cap", 1.5)

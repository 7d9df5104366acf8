"""What is measured of heads: errors against masks written out, what layers cost a video, and what comes of both."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vdit_core.attention.reference import masked_attention
from vdit_core.call import ModelSignature, TokenGrid
from vdit_core.metrics import Quality
from vdit_core.selection import Indices
from vdit_core.sparse.ablation import Case, LayerAblation, cases, measure
from vdit_core.sparse.calibration import LEVELS, TEMPERATURES, Calibration, LocalErrors, profile
from vdit_core.sparse.config import SparseConfig
from vdit_core.sparse.describe import describe
from vdit_core.sparse.patterns import PATTERNS
from vdit_core.sparse.patterns.always import always
from vdit_core.sparse.quality import compare
from vdit_core.sparse.sparse_attention import SparseAttention
from vdit_core.sparse.tiled import tile
from vdit_core.sparse.tiling import tiles

GRID = TokenGrid(3, 6, 6)


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_measuring_changes_nothing(host):
    assert same(host(grid=GRID).run(1, Calibration("exact top-k")), host(grid=GRID).run(1))


@pytest.mark.parametrize("chunk", [64 * 2**20, 4 * 2 * 2 * GRID.tokens * 30])
def test_exact_errors_are_those_of_exact_masking(host, monkeypatch, chunk):
    monkeypatch.setattr("vdit_core.attention.reference.CHUNK_BYTES", chunk)
    synthetic = host(grid=GRID, samples=2)
    observer = Calibration("exact top-k", Indices("0, 2"))
    synthetic.run(1, observer)
    found = observer.found
    assert found.errors.shape == (3, 2, len(TEMPERATURES), len(LEVELS))
    for n, level in enumerate(LEVELS):
        for t, temperature in enumerate(TEMPERATURES):
            errors = []
            for site in synthetic.sites():
                if site.layer == 1 and site.step in (0, 2):
                    q, k, v = synthetic.tensors(1, site)
                    whole = masked_attention(q, k, v, torch.ones(2))[0]
                    # The strongest weights are the same at any temperature; all that are kept are softened.
                    part = masked_attention(q, k, v, torch.full((2,), level), temperature=temperature)[0]
                    errors.append((part - whole).double().square().mean((0, 2, 3)))
            assert found.errors[1, :, t, n] == pytest.approx(torch.stack(errors).mean(0).numpy(), rel=1e-4)


def test_block_errors_are_those_of_the_blocks(host):
    synthetic = host(grid=GRID, sigmas=(1.0,), branches=("cond",))
    observer = Calibration("block top-k")
    synthetic.run(1, observer)
    plan = tiles(GRID)
    place = torch.empty(GRID.tokens, dtype=torch.long)
    place[plan.permutation.long()] = torch.arange(GRID.tokens)
    (site,) = (site for site in synthetic.sites() if site.layer == 2)
    q, k, v = synthetic.tensors(1, site)
    level = LEVELS.index(0.3)
    lists = PATTERNS["block top-k"](tile(q, k, v, plan), torch.full((2,), 0.3), always(plan), torch.ones(2))
    mask = lists.to_dense(plan.key_blocks)[:, :, place // plan.queries][..., place // plan.keys]
    scores = q.double() @ k.double().mT / math.sqrt(q.shape[-1])
    error = (scores.masked_fill(~mask, -math.inf).softmax(-1) - scores.softmax(-1)) @ v.double()
    expected = error.square().mean((0, 2, 3)).numpy()
    assert observer.found.plain[2, :, level] == pytest.approx(expected, rel=1e-4)


def test_a_sample_of_queries_stands_for_all(host):
    every, some = Calibration("exact top-k"), Calibration("exact top-k", queries=40)
    for observer in (every, some):
        host(grid=GRID).run(1, observer)
    assert some.found.plain == pytest.approx(every.found.plain, rel=0.5)
    assert not np.array_equal(some.found.plain, every.found.plain)


def test_methods_that_adapt_are_not_measured():
    with pytest.raises(ValueError, match="'block top-p' is not measured; those that are: block top-k, window"):
        Calibration("block top-p")


def test_a_run_that_breaks_off_gives_no_errors(host):
    observer = Calibration("exact top-k")
    with pytest.raises(RuntimeError, match="broken"):
        host(grid=GRID).run(1, observer, backend=lambda *_: (_ for _ in ()).throw(RuntimeError("broken")))
    with pytest.raises(RuntimeError, match="has not ended well"):
        _ = observer.found


MODEL = ModelSignature(3, 2, 8)


def local(model: ModelSignature = MODEL) -> LocalErrors:
    """Layer 1 is strict; head 1 of each layer is better off at temperature 1.1."""
    levels = np.array(LEVELS)
    plain = np.array([1e-4, 1.0, 1e-3])[:, None, None] * np.array([1.0, 2.0])[:, None] * (1 - levels) ** 2
    errors = np.repeat(plain[:, :, None], len(TEMPERATURES), axis=2)
    errors[:, 1, TEMPERATURES.index(1.1)] *= 0.5
    return LocalErrors(model, "exact top-k", LEVELS, TEMPERATURES, errors, np.ones((3, 2)))


def test_a_profile_gives_most_to_the_strict_layer_and_tunes_temperatures():
    made = profile(local(), 0.4, measured={"seed": 1})
    assert made.densities().mean() == pytest.approx(0.4)
    assert made.densities()[1].min() > 2 * made.densities()[[0, 2]].max()
    assert np.array(made.temperature)[:, 0] == pytest.approx(1.0)
    assert np.array(made.temperature)[:, 1] == pytest.approx(1.1)
    assert profile(local(), 0.4, tune=False).temperature == ((((1.0,) * 8),) * 2,) * 3


def test_weights_move_the_density():
    heavy = profile(local(), 0.4, np.array([1e6, 1.0, 1.0])).densities()
    assert heavy[0].mean() > profile(local(), 0.4).densities()[0].mean()


def clips_of(keeps) -> torch.Tensor:
    """Videos that suffer from masked layers: layer 1 hundred times as much."""
    base = torch.rand(1, 3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.5
    noise = torch.randn(3, 3, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 0.01
    harm = torch.tensor([1.0, 10.0, 1.0])
    videos = []
    for keep in keeps:
        lost = torch.from_numpy(1 - keep.mean(1)).float()
        videos.append(base + ((lost * harm)[:, None, None, None, None] * noise).sum(0))
    return torch.cat(videos)


def test_every_layer_alone_then_all_but_the_worst():
    asked = []

    def sample(keeps):
        asked.append(len(keeps))
        return clips_of(keeps)

    found = measure(MODEL, 0.3, sample, max_spared=2)
    assert asked == [5, 3]
    assert found.worst[0] == 1
    assert found.all_but[0].label == "all but 1"
    assert found.all_but[0].quality.psnr > found.everything.quality.psnr + 10
    assert found.all_but[1].quality.psnr > found.all_but[0].quality.psnr
    weights = found.weights(local())
    assert weights.mean() == pytest.approx(1)
    # Layer 1's local error is 10,000 times layer 0's, its video's 100 times: an error there weighs less.
    assert weights[1] < weights[0]


def test_the_cases_mask_what_they_say():
    tables = dict(cases(MODEL, 0.25))
    assert (tables["dense"] == 1).all()
    assert (tables["layer 2 masked"] == np.array([[1, 1], [1, 1], [0.25, 0.25]])).all()
    assert (tables["all masked"] == 0.25).all()


def test_the_words_name_the_layers():
    case = Case("x", np.ones((3, 2)), Quality(20.0, 0.9, 0.1))
    found = LayerAblation(
        0.3, (case, case, case), case, (Case("all but 1", np.ones((3, 2)), Quality(31.0, 0.99, 0.01)),)
    )
    text = describe(profile(local(), 0.4), found)
    assert text.startswith("Method exact top-k, 40% of the maps on average. Most is spent on layers 1,")
    assert "all layers masked 20.0 dB; all but 1 31.0 dB" in text


def test_quality_is_measured_against_the_dense_video():
    sampled = []

    def sample(editor: SparseAttention | None) -> torch.Tensor:
        sampled.append(editor)
        keep = 1.0 if editor is None else editor.config.density
        profiled = editor is not None and editor.config.profile is not None
        return clips_of([np.full((3, 2), keep + (1 - keep) * 0.9 * profiled)])

    made = profile(local(), 0.4)
    found = compare(sample, lambda x: x, SparseConfig("exact top-k"), [0.5, 0.2], made)
    tried = [(trial.density, trial.profiled) for trial in found.videos]
    assert tried == [(0.5, False), (0.5, True), (0.2, False), (0.2, True)]
    assert list(found.clips) == ["dense", *(trial.label for trial in found.videos)]
    assert all(gain > 15 for gain in found.gains().values())
    assert found.videos[0].quality.psnr > found.videos[2].quality.psnr
    assert len(sampled) == 5
    assert len(found.as_text().splitlines()) == 7

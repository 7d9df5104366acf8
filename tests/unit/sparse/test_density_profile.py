"""What each head needs, and how a density is spent by it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vdit_core.call import ModelSignature
from vdit_core.ranks import rank_correlation
from vdit_core.sparse.allocation import ALIKE, by_need
from vdit_core.sparse.calibration import LEVELS
from vdit_core.sparse.density_profile import DensityProfile
from vdit_core.sparse.profile import ProfileError, SparseProfile
from vdit_core.sparse.profile_comparison import beside_published
from vdit_core.sparse.profile_file import load_profile

needs = st.integers(1, 12).flatmap(lambda n: arrays(float, n, elements=st.floats(0, 1)))
shares = st.floats(0, 1)


@given(needs, shares)
def test_the_mean_is_met_within_bounds(needed, density):
    found = by_need(needed, density)
    assert found.mean() == pytest.approx(density, abs=1e-9)
    assert (found <= 1).all()
    assert (found >= ALIKE * density).all()


@given(needs, shares)
def test_who_needs_more_gets_no_less(needed, density):
    found = by_need(needed, density)
    assert (np.diff(found[np.argsort(needed)]) >= 0).all()


@given(needs, shares, shares)
def test_more_to_spend_takes_nothing_from_anyone(needed, one, other):
    low, high = sorted((one, other))
    assert (by_need(needed, high) >= by_need(needed, low) - 1e-9).all()


@given(needs, shares)
def test_what_is_not_alike_is_in_proportion_to_need(needed, density):
    found = by_need(needed, density)
    free = (found < 1 - 1e-9) & (needed >= 1e-4)
    multiples = (found[free] - ALIKE * density) / needed[free]
    assert multiples == pytest.approx(np.full(len(multiples), multiples[:1].sum()), rel=1e-6, abs=1e-6)


def test_exact_allocations():
    assert by_need(np.array([0.1, 0.2, 0.3]), 0.4) == pytest.approx([0.3, 0.4, 0.5])
    assert by_need(np.array([0.1, 0.9]), 0.75) == pytest.approx([0.5, 1.0]), "capped"
    assert by_need(np.array([0.0, 0.5]), 0.2) == pytest.approx([0.1, 0.3], abs=1e-4)
    assert by_need(np.array([0.0, 0.9]), 1.0).tolist() == [1, 1]
    assert by_need(np.array([0.0, 0.9]), 0.99) == pytest.approx([0.98, 1.0]), "those without need come last"
    assert by_need(np.array([0.1, 0.9]), 0.0) == pytest.approx([0, 0])
    assert by_need(np.zeros((2, 2)), 0.3) == pytest.approx(np.full((2, 2), 0.3))


def example(**changes) -> DensityProfile:
    fields = {
        "model": ModelSignature(3, 2, 8),
        "needed": ((0.1, 0.2), (0.0, 1.0), (0.3, 0.4567)),
        "name": "Wän",
        "measured": {"source": "a table", "steps": 40},
    }
    return DensityProfile(**(fields | changes))


def test_densities_and_temperatures_of_all_heads():
    found = example().densities(0.25)
    assert found.shape == (3, 2)
    assert found.mean() == pytest.approx(0.25)
    assert found[1, 0] == pytest.approx(0.125, abs=1e-3)
    assert (found[2, 0] - 0.125) / (found[0, 0] - 0.125) == pytest.approx(3)
    assert example().temperatures(found).tolist() == [[1, 1]] * 3


def test_a_profile_comes_back_from_its_file_either_way(tmp_path):
    path = tmp_path / "profile.json"
    example().save(path)
    assert DensityProfile.load(path) == load_profile(path) == example()
    assert path.read_text(encoding="utf-8").count("\n  [") == 3, "a line for each layer"
    assert [p.name for p in tmp_path.iterdir()] == ["profile.json"]


def measured(**changes) -> SparseProfile:
    """Errors that fall to zero, one head worse than the others."""
    falling = 1 - np.array(LEVELS)
    errors = tuple(
        tuple(tuple(map(float, falling * (1 + 4 * (layer + head)))) for head in (0, 1)) for layer in range(3)
    )
    ones = (((1.0,) * len(LEVELS),) * 2,) * 3
    return replace(SparseProfile(ModelSignature(3, 2, 8), "block top-k", 0.25, LEVELS, errors, ones), **changes)


def test_the_loader_reads_the_other_kind(tmp_path):
    path = tmp_path / "profile.json"
    measured().save(path)
    assert load_profile(path) == measured()


def test_a_kind_is_not_read_as_the_other(tmp_path):
    example().save(tmp_path / "density.json")
    measured().save(tmp_path / "errors.json")
    with pytest.raises(ProfileError, match="JSON of another kind"):
        SparseProfile.load(tmp_path / "density.json")
    with pytest.raises(ProfileError, match="JSON of another kind"):
        DensityProfile.load(tmp_path / "errors.json")


def test_another_shape_and_methods_that_choose_otherwise_are_refused():
    for method in ("block top-k", "exact top-k"):
        example().check(ModelSignature(3, 2, 8), method)
    with pytest.raises(
        ProfileError, match="of Wän is of a model of 3 layers x 2 heads x 8; this one has 30 layers x 12"
    ):
        example().check(ModelSignature(30, 12, 128), "block top-k")
    for method in ("block top-p", "exact top-p", "window", "radial"):
        with pytest.raises(
            ProfileError, match=f"nothing of the method '{method}'.* serves block top-k and exact top-k"
        ):
            example().check(ModelSignature(3, 2, 8), method)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mass": 0.0}, "mass is 0.0, and must be above 0"),
        ({"mass": 1.5}, "mass is 1.5"),
        ({"mass": float("nan")}, "mass is nan"),
        ({"needed": ((0.1, 0.2),) * 2}, "needed must hold 3 x 2 numbers from 0 to 1"),
        ({"needed": ((0.1, 0.2), (0.1,), (0.1, 0.2))}, "needed must hold 3 x 2"),
        ({"needed": ((0.1, 1.2),) * 3}, "needed must hold 3 x 2"),
        ({"needed": ((0.1, -0.1),) * 3}, "needed must hold 3 x 2"),
        ({"needed": ((0.1, float("nan")),) * 3}, "needed must hold 3 x 2"),
        ({"needed": None}, "needed must hold 3 x 2"),
    ],
)
def test_what_does_not_fit_is_named(changes, says):
    with pytest.raises(ProfileError, match=says):
        example(**changes)


def test_a_measured_profile_is_told_apart_from_a_published_one():
    text = beside_published(measured(), None)
    assert "errors of the attention's output" in text
    assert text.endswith("No published profile fits this model.")
    assert "chooses by place" in beside_published(measured(method="window"), example())


def test_a_measured_profile_is_compared_with_a_published_one():
    own, other = measured(), example()
    text = beside_published(own, other)
    rank = rank_correlation(own.densities(), other.densities(0.25))
    assert f"Beside that of Wän, both at 25% on average: rank correlation of the heads' densities {rank:.2f}" in text
    apart = np.abs(own.densities() - other.densities(0.25))
    layer, head = np.unravel_index(apart.argmax(), apart.shape)
    assert f"the published one's): {layer}@{head} {own.densities()[layer, head]:.0%} (" in text
    assert json.dumps(text)

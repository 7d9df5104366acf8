"""How a density is spent, and the profile that says so."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdit_core.call import ModelSignature
from vdit_core.sparse.allocation import allocate
from vdit_core.sparse.profile import ProfileError, SparseProfile

LEVELS = np.array([0.05, 0.2, 0.5, 0.8])
error_rows = st.lists(st.lists(st.floats(0, 10), min_size=4, max_size=4), min_size=1, max_size=6).map(
    lambda rows: -np.sort(-np.array(rows), axis=1)
)


@given(error_rows, st.floats(0.05, 1))
def test_the_mean_is_kept(errors, keep):
    densities = allocate(errors, LEVELS, keep)
    assert densities.mean() == pytest.approx(keep, abs=1e-9)
    assert ((densities >= LEVELS[0] - 1e-9) & (densities <= 1 + 1e-9)).all()


@given(error_rows, st.floats(0.05, 0.9))
def test_more_to_spend_takes_nothing_from_anyone(errors, keep):
    assert (allocate(errors, LEVELS, keep + 0.1) >= allocate(errors, LEVELS, keep) - 1e-9).all()


def test_heads_alike_get_alike():
    assert allocate(np.array([[4.0, 2, 1, 0.1]] * 3), LEVELS, 1.0).tolist() == [1, 1, 1]
    tolerant, strict = allocate(np.array([[1e-6, 1e-7, 1e-8, 1e-9], [1.0, 0.5, 0.2, 0.1]]), LEVELS, 0.3)
    assert strict > 5 * tolerant


def test_it_is_the_best_of_all_allocations():
    """Against every allocation on a coarse grid of densities, of errors that are linear between the levels."""
    rng = np.random.default_rng(0)
    levels = np.array([0.1, 0.4, 0.7])
    errors = -np.sort(-rng.exponential(size=(3, 3)), axis=1)

    def damage(densities):
        points, values = np.append(levels, 1.0), np.hstack([errors, np.zeros((3, 1))])
        with np.errstate(divide="ignore"):
            logs = np.log(values)
        total = 0.0
        for head, density in enumerate(densities):
            if density > levels[-1]:
                total += values[head, 2] * (1 - density) / (1 - levels[-1])
            else:
                total += np.exp(np.interp(density, points[:3], logs[head, :3]))
        return total

    found = damage(allocate(errors, levels, 0.5))
    grid = np.arange(0.1, 1.0001, 0.05)
    best = min(damage(some) for some in product(grid, repeat=3) if sum(some) <= 1.5 + 1e-9)
    assert found <= best * 1.02


def test_less_than_the_lowest_level_is_spread_evenly():
    assert allocate(np.array([[1.0, 0.5, 0.2, 0.1]] * 4), LEVELS, 0.02).tolist() == [0.02] * 4


def example(**changes) -> SparseProfile:
    table = tuple(tuple(tuple(float(v) for v in (8 / (i + 1), 4, 2, 1)) for _ in range(2)) for i in range(3))
    fields = {
        "model": ModelSignature(3, 2, 8),
        "method": "block top-k",
        "density": 0.3,
        "levels": tuple(LEVELS),
        "errors": table,
        "temperature": (((1.0,) * 4, (1.5, 1.1, 1.0, 1.0)),) * 3,
        "measured": {"grid": "2 x 3 x 3", "steps": 20},
    }
    return SparseProfile(**(fields | changes))


def test_a_profile_comes_back_from_its_file(tmp_path):
    path = tmp_path / "profile.json"
    example().save(path)
    assert SparseProfile.load(path) == example()
    assert json.loads(path.read_text())["densities"] == example().densities().round(4).tolist()
    assert [p.name for p in tmp_path.iterdir()] == ["profile.json"]


def test_the_density_that_is_asked_for_is_the_mean():
    assert example().densities().mean() == pytest.approx(0.3)
    assert example().densities(0.7).mean() == pytest.approx(0.7)


def test_a_file_of_version_1_is_read_with_todays_names():
    """What 0.1.0-dev wrote."""
    text = json.loads(example().to_json())
    old = text | {"version": 1, "keep": text["density"], "method": "top blocks", "dense_layers": [], "dense_first": 0.0}
    del old["densities"]
    old["density"] = text["densities"]
    assert SparseProfile.from_json(json.dumps(old)) == example()


def test_temperatures_go_with_the_density():
    found = example().temperatures(np.array([[0.05, 0.05], [0.5, 0.125], [1.0, 1.0]]))
    assert found.tolist() == [[1, 1.5], [1, pytest.approx(1.3)], [1, 1]]


def test_another_model_or_method_is_refused():
    example().check(ModelSignature(3, 2, 8), "block top-k")
    with pytest.raises(ProfileError, match="3 layers x 2 heads x 8; this one has 30 layers x 12 heads x 128"):
        example().check(ModelSignature(30, 12, 128), "block top-k")
    with pytest.raises(ProfileError, match="for the method 'block top-k', not 'window'"):
        example().check(ModelSignature(3, 2, 8), "window")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"method": "blocks"}, "no method 'blocks'"),
        ({"method": "block top-p"}, "adapts to each head"),
        ({"density": 1.5}, "density is 1.5"),
        ({"levels": (0.5, 0.2, 0.6, 0.7)}, "must rise"),
        ({"levels": ()}, "must rise"),
        ({"errors": (((1.0,),),)}, "errors must hold 3 x 2 x 4 numbers"),
        (
            {"temperature": (((1.0,) * 4, (1.0, 0.0, 1.0, 1.0)),) * 3},
            "3 x 2 x 4 numbers, 0.01 or more",
        ),
        ({"temperature": ((1.0,),) * 3}, "temperature must hold 3 x 2"),
    ],
)
def test_what_does_not_fit_is_named(changes, says):
    with pytest.raises(ProfileError, match=says):
        example(**changes)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "{}",
        lambda text: text.replace('"version": 2', '"version": 3'),
        lambda text: text.replace("1.1", "NaN"),
        lambda text: text.replace("1.1", '"__import__"'),
        lambda text: text.replace('"layers": 3', '"layers": -3'),
        lambda text: text.replace('"layers": 3', '"layers": 4'),
        lambda text: text.replace('"steps": 20', '"steps": [20]'),
        lambda text: "[" * 100000,
    ],
)
def test_a_spoilt_file_is_refused_by_name(tmp_path, spoil):
    path = tmp_path / "bad.json"
    path.write_text(spoil(example().to_json()))
    with pytest.raises(ProfileError, match=r"bad\.json is not a whole sparsity profile"):
        SparseProfile.load(path)


def test_no_file_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no sparsity profile"):
        SparseProfile.load(tmp_path / "none.json")


def test_profiles_with_the_same_figures_are_equal():
    assert example() == replace(example())

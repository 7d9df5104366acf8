"""Tables of densities that others published: what is read of them, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vdit_core.call import ModelSignature
from vdit_core.ranks import rank_correlation, ranks
from vdit_core.selection import Indices, SelectionError
from vdit_core.sparse.density_statistics import changes, explained
from vdit_core.sparse.density_table import profile_of, read
from vdit_core.sparse.profile import ProfileError

MODEL = ModelSignature(2, 3, 8)
RNG = np.random.default_rng(0)
DENSITIES = RNG.random((4, 2, 3)).round(4)


def text_of(densities, first: int = 1) -> str:
    lines = ["Step,Layer,Head,Sparsity"]
    lines += [f"{step + first},{layer},{head},{value}" for (step, layer, head), value in np.ndenumerate(densities)]
    return "\n".join(lines) + "\n"


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes):
        path = tmp_path / "table.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_a_table_is_read_as_it_is(write):
    found = read(write(text_of(DENSITIES)), MODEL)
    assert found.steps == (1, 2, 3, 4)
    assert (found.densities == DENSITIES).all()


def test_order_of_lines_and_columns_and_more_columns_do_not_matter(write):
    lines = [line.split(",") for line in text_of(DENSITIES).splitlines()]
    mixed = [lines[0], *(lines[n] for n in RNG.permutation(np.arange(1, len(lines))))]
    text = "\ufeff" + "\r\n".join(f"{value}, {head},x,{step} ,{layer}" for step, layer, head, value in mixed)
    assert (read(write(text), MODEL).densities == DENSITIES).all()


def test_a_profile_is_the_mean_over_steps_and_tables(write):
    table = read(write(text_of(DENSITIES)), MODEL)
    found = profile_of([table], MODEL, mass=0.9, name="x", measured={"a": 1})
    assert (found.mass, found.name, found.measured) == (0.9, "x", {"a": 1})
    assert (found.table() == DENSITIES.mean(0).round(4)).all()
    assert (profile_of([table], MODEL, Indices("2-3")).table() == DENSITIES[2:].mean(0).round(4)).all()
    other = read(write(text_of(1 - DENSITIES[:2])), MODEL)
    both = np.concatenate([DENSITIES[:1], 1 - DENSITIES[:1]]).mean(0)
    assert profile_of([table, other], MODEL, Indices("0")).table() == pytest.approx(both, abs=1e-4)


def test_steps_that_are_not_there_are_refused(write):
    table = read(write(text_of(DENSITIES)), MODEL)
    with pytest.raises(SelectionError, match="Step 4 in '4' is out of range: there are 4 steps, 0 to 3"):
        profile_of([table], MODEL, Indices("4"))
    with pytest.raises(ProfileError, match="'none' are none"):
        profile_of([table], MODEL, Indices("none"))


@given(arrays(float, st.tuples(st.integers(2, 4), st.just(2), st.just(3)), elements=st.floats(0, 1)))
def test_variance_explained_is_a_share_and_heads_explain_more_than_layers(densities):
    found = explained(densities)
    assert -1e-9 <= found.layer <= found.head + 1e-9 <= 1 + 2e-9
    assert -1e-9 <= found.step <= 1 + 1e-9


def test_variance_explained_exactly():
    of_heads = np.broadcast_to(RNG.random((1, 2, 3)), (4, 2, 3))
    assert explained(of_heads).head == pytest.approx(1)
    assert explained(of_heads).step == pytest.approx(0)
    of_steps = np.broadcast_to(RNG.random((4, 1, 1)), (4, 2, 3))
    assert explained(of_steps).step == pytest.approx(1)
    assert explained(of_steps).head == pytest.approx(0)
    of_layers = np.broadcast_to(RNG.random((1, 2, 1)), (4, 2, 3))
    assert explained(of_layers).layer == pytest.approx(1)
    assert explained(np.ones((2, 2, 3))).head == 0


def test_ranks_and_their_correlation():
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1, 3.5, 2]
    rising = np.arange(6.0).reshape(2, 3)
    assert rank_correlation(rising, np.exp(rising)) == pytest.approx(1)
    assert rank_correlation(rising, -rising) == pytest.approx(-1)
    assert rank_correlation(rising, np.ones((2, 3))) is None
    # by hand: d = 1, 1, 0, 0 of 4 values: 1 - 6 * 2 / (4 * 15)
    assert rank_correlation(np.array([1, 2, 3, 4]), np.array([2, 1, 3, 4])) == pytest.approx(0.8)


def test_a_change_of_the_model_stands_out():
    one, other = RNG.random((2, 2, 3))
    drift = 0.001 * RNG.random((10, 2, 3))
    run = np.stack([one] * 4 + [other] * 6) + drift
    run[0] += 0.3  # the first step is unlike the others in any run
    found = changes(run)
    most = max(found, key=lambda change: change.times)
    assert most.after == 3
    assert most.times > 20
    assert found[0].times == found[-1].times == 0
    assert most.distance == pytest.approx(np.abs(run[4] - run[3]).mean())

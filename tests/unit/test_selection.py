from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdit_core.selection import Indices, LayerMask, SelectionError, choose_branches


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [
        ("all", 3, (0, 1, 2)),
        ("none", 3, ()),
        ("2", 3, (2,)),
        ("0-2", 4, (0, 1, 2)),
        ("0-9/4", 10, (0, 4, 8)),
        (" 3 , 1,1 ", 4, (1, 3)),
        ("ALL", 2, (0, 1)),
        ("early", 30, tuple(range(10))),
        ("middle", 30, tuple(range(10, 20))),
        ("late", 30, tuple(range(20, 30))),
        ("0%-50%", 25, tuple(range(13))),
        ("50%-100%", 4, (2, 3)),
        ("33.3%-33.3%", 9, ()),
    ],
)
def test_what_the_terms_mean(text, count, expected):
    assert Indices(text).resolve(count, "layer") == expected


@pytest.mark.parametrize("count", [1, 2, 8, 9, 10, 30, 40])
def test_thirds_share_out_all_layers_once(count):
    thirds = [Indices(word).resolve(count, "layer") for word in ("early", "middle", "late")]
    assert sum(thirds, ()) == tuple(range(count))
    assert max(map(len, thirds)) - min(map(len, thirds)) <= 1


@pytest.mark.parametrize(
    "text",
    ["", ",", "3,,4", "7-3", "-1", "1-", "x", "3:0.5", "0-8/0", "٣", "1.5", "0%-150%", "60%-40%", "all layers", "1;2"],
)
def test_what_cannot_be_read_is_refused_at_once(text):
    with pytest.raises(SelectionError):
        Indices(text)


def test_messages_name_the_value_and_what_to_do():
    with pytest.raises(SelectionError, match=r"Layer 35 in '30-35' is out of range: there are 30 layers, 0 to 29"):
        Indices("30-35").resolve(30, "layer")
    with pytest.raises(SelectionError, match="write 3-7"):
        LayerMask("7-3")
    with pytest.raises(SelectionError, match=r"made for a model of 30 layers; this one has 40"):
        LayerMask("all", made_for=30).resolve(40)
    with pytest.raises(SelectionError, match=r"Strength 1\.5"):
        LayerMask("3:1.5")
    with pytest.raises(SelectionError, match="no branch 'uncond'"):
        choose_branches("uncond", ("cond",))


def test_the_last_term_that_names_a_layer_counts():
    assert LayerMask("all, 3:0, 5:0.5").resolve(7) == {0: 1, 1: 1, 2: 1, 4: 1, 5: 0.5, 6: 1}
    assert LayerMask("0:0.2, 0-1").resolve(3) == {0: 1, 1: 1}


@given(st.dictionaries(st.integers(0, 39), st.integers(0, 100).map(lambda percent: percent / 100)))
def test_a_mask_survives_its_text_form(strengths):
    mask = LayerMask.of(strengths, made_for=40)
    assert LayerMask(str(mask), 40).resolve(40) == {i: s for i, s in sorted(strengths.items()) if s > 0}


@given(st.text(alphabet="all none early0123456789-,:/.% ", max_size=24), st.integers(1, 60))
def test_any_text_is_read_or_refused(text, count):
    try:
        strengths = LayerMask(text).resolve(count)
    except SelectionError:
        return
    assert all(0 <= layer < count and 0 < strength <= 1 for layer, strength in strengths.items())


@given(st.floats(0, 1))
def test_a_scaled_mask_has_every_strength_multiplied(factor):
    mask = LayerMask("all:0.5, 3, 1:0", made_for=5)
    scaled = mask.scaled(factor).resolve(5)
    expected = {i: s * factor for i, s in mask.resolve(5).items() if round(s * factor, 6) > 0}
    assert scaled == pytest.approx(expected, abs=1e-6)
    assert mask.scaled(1.0).resolve(5) == mask.resolve(5)

"""Masks of layers and heads: what their text means, and that it survives being written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdit_core.call import ModelSignature
from vdit_core.head_mask import HeadMask, head_strengths
from vdit_core.selection import LayerMask, SelectionError

MODEL = ModelSignature(4, 3, 8)
KINDS = (("double", 1), ("single", 3))


@pytest.mark.parametrize(
    ("text", "strengths"),
    [
        ("2@1", {2: (0, 1, 0)}),
        ("1-2@0-1:0.5", {1: (0.5, 0.5, 0), 2: (0.5, 0.5, 0)}),
        ("all@2, 3:0", {0: (0, 0, 1), 1: (0, 0, 1), 2: (0, 0, 1)}),
        ("3, 3@1:0", {3: (1, 0, 1)}),
        ("0@0, 0@0:0", {}),
        (" 1 @ early : .5 ", {1: (0.5, 0, 0)}),
        ("single 0@2, double all@0", {0: (1, 0, 0), 1: (0, 0, 1)}),
        ("0%-50%@0-2/2", {0: (1, 0, 1), 1: (1, 0, 1)}),
        ("1@none", {}),
    ],
)
def test_what_a_text_means(text, strengths):
    assert HeadMask(text).resolve(4, 3, KINDS) == strengths


@given(st.dictionaries(st.tuples(st.integers(0, 3), st.integers(0, 2)), st.floats(0, 1)))
def test_a_mask_of_numbers_survives_its_text_to_six_decimals(strengths):
    found = HeadMask.of(strengths, 4, 3).resolve(4, 3)
    for layer in range(4):
        for head in range(3):
            wanted = strengths.get((layer, head), 0)
            assert found.get(layer, (0, 0, 0))[head] == pytest.approx(wanted, abs=5.1e-7)


@given(st.dictionaries(st.integers(0, 3), st.floats(0, 1)))
def test_a_layer_mask_is_a_head_mask(strengths):
    layers = LayerMask.of(strengths, made_for=4)
    heads = HeadMask.of_layers(layers)
    assert head_strengths(layers, MODEL) == head_strengths(heads, MODEL)
    assert heads.resolve(4, 3) == {layer: (s,) * 3 for layer, s in layers.resolve(4).items()}


def test_scaling_multiplies_every_strength():
    mask = HeadMask("all:0.5, 1@0, 2@1:0", 4, 3).scaled(0.5)
    assert mask.resolve(4, 3) == {
        0: (0.25, 0.25, 0.25), 1: (0.5, 0.25, 0.25), 2: (0.25, 0, 0.25), 3: (0.25, 0.25, 0.25)
    }  # fmt: skip
    assert (mask.layers, mask.heads) == (4, 3)
    assert HeadMask().scaled(0).resolve(4, 3) == {}


def test_a_mask_names_kinds_or_fits_any_model():
    assert HeadMask("single 0@1").names_kinds
    assert not HeadMask("0@1, all").names_kinds
    with pytest.raises(SelectionError, match="its layers are of one kind"):
        head_strengths(HeadMask("single 0@1"), MODEL)


def test_a_file_is_what_was_saved(tmp_path):
    for mask in (HeadMask("5@0, 3-7@0-2:0.5", 30, 12), HeadMask(), HeadMask("all@0", heads=3)):
        mask.save(tmp_path / "a.headmask")
        assert HeadMask.load(tmp_path / "a.headmask") == mask

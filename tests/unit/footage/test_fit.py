"""Clips that a model cannot take are refused with what it can."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdit_core.footage.config import FootageError
from vdit_core.footage.fit import check_fit


@pytest.mark.parametrize(
    ("clip", "said"),
    [
        ((500, 300, 17), r"500 × 300 px, .* multiples of 16: scale or crop it to 496 × 304\."),
        ((832, 480, 80), r"80 frames, .* 4 n \+ 1: cut it or lengthen it to 77 or 81\."),
        ((5, 480, 2), r"16 × 480; it has 2 frames, .* to 1 or 5\."),
    ],
)
def test_the_message_names_the_nearest(clip: tuple[int, int, int], said: str) -> None:
    with pytest.raises(FootageError, match=said):
        check_fit(*clip, 16, 4)


_SIDES = st.integers(1, 3000)


@given(_SIDES, _SIDES, st.integers(1, 400), st.sampled_from([8, 16, 32]), st.sampled_from([4, 8]))
def test_what_the_message_names_fits(width: int, height: int, frames: int, spatial: int, temporal: int) -> None:
    try:
        check_fit(width, height, frames, spatial, temporal)
    except FootageError as error:
        sizes = re.search(r"to (\d+) × (\d+)", str(error))
        lengths = re.search(r"to (\d+) or (\d+)\.", str(error))
        assert sizes or lengths
        size = tuple(map(int, sizes.groups())) if sizes else (width, height)
        assert all(abs(a - b) < spatial for a, b in zip(size, (width, height), strict=True))
        for length in map(int, lengths.groups()) if lengths else [frames]:
            assert abs(length - frames) < temporal
            check_fit(*size, length, spatial, temporal)
    else:
        assert width % spatial == height % spatial == (frames - 1) % temporal == 0

"""Clips under their labels: nothing of a clip changes, and every label is there."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vdit_core.reporting.labelled import _font, _wrapped, beside, contact_sheet

GAP = 8


def clips(count: int, frames: int = 2, height: int = 24, width: int = 128) -> list[torch.Tensor]:
    return [torch.rand(3, frames, height, width, generator=torch.Generator().manual_seed(n)) for n in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_pixels_stay_as_they_are(count):
    given_clips = clips(count)
    sheet = beside([(f"clip {n}", clip) for n, clip in enumerate(given_clips)])
    head = sheet.shape[-2] - 24
    assert 12 < head < 40
    for n, clip in enumerate(given_clips):
        left = n * (128 + GAP)
        shown = sheet[..., :, left : left + 128]
        rows = [shown[..., top : top + 24, :] for top in range(head - 1, head + 1)]
        assert any(torch.equal(row, clip) for row in rows)  # one more row makes an odd height even


def test_without_labels_there_is_no_room_for_them():
    sheet = beside([("", clip) for clip in clips(2)])
    assert sheet.shape == (3, 2, 24, 2 * 128 + GAP)
    assert torch.equal(sheet[..., :128], clips(2)[0])


@pytest.mark.parametrize(
    ("direction", "shape"), [("right", (24, 4 * 128 + 3 * GAP)), ("down", (4 * 24 + 3 * GAP, 128)),
                             ("grid", (2 * 24 + GAP, 2 * 128 + GAP))]
)  # fmt: skip
def test_directions(direction, shape):
    given_clips = clips(4)
    sheet = beside([("", clip) for clip in given_clips], direction=direction)
    assert sheet.shape[-2:] == shape
    assert torch.equal(sheet[..., -24:, -128:], given_clips[3])


def test_a_grid_with_a_place_left():
    sheet = beside([("", clip) for clip in clips(3)], direction="grid")
    assert sheet.shape[-2:] == (2 * 24 + GAP, 2 * 128 + GAP)
    rest = sheet[..., -24:, -128:]
    assert torch.equal(rest, rest[:, :1, :1, :1].expand_as(rest))


@pytest.mark.parametrize("direction", ["right", "down", "grid"])
def test_both_sides_are_even(direction):
    clip = torch.rand(3, 1, 33, 47)
    assert all(side % 2 == 0 for side in beside([("a", clip), ("", clip)], 1, direction).shape[-2:])


def test_a_label_is_drawn_over_its_clip_and_alike_in_every_frame():
    left, right = clips(2, frames=3)
    sheet, other = beside([("one", left), ("two", right)]), beside([("one", left), ("four", right)])
    head = slice(0, 12)
    assert torch.equal(sheet[:, 0, head, :128], other[:, 0, head, :128])
    assert not torch.equal(sheet[:, 0, :24, 128 + GAP :], other[:, 0, :24, 128 + GAP :])
    assert torch.equal(sheet[:, 0, head], sheet[:, 2, head])


def test_enlarged_three_times():
    (clip,) = clips(1)
    sheet = beside([("", clip)], 3)
    assert sheet.shape[-2:] == (72, 384)
    assert 0 <= sheet.min() <= sheet.max() <= 1
    middles = sheet[..., 1::3, 1::3]  # of an enlarged pixel: bicubic passes through the values
    torch.testing.assert_close(middles, clip, rtol=0, atol=1e-5)


def test_other_sizes_are_refused_by_name():
    with pytest.raises(ValueError, match=r"source: 128 x 24 px, 2 frames; 2: 64 x 24 px, 2 frames.*one size"):
        beside([("source", clips(1)[0]), ("", torch.rand(3, 2, 24, 64))])


def test_letters_that_no_font_has_are_named():
    with pytest.raises(ValueError, match="No font of this machine has \U0010abcd"):
        beside([("\U0010abcd", clips(1)[0])])


@given(st.text("abc dé-", min_size=1, max_size=60).filter(str.strip), st.integers(40, 300))
def test_no_letter_of_a_label_is_lost(text, width):
    font = _font(14, text)
    lines = _wrapped(text, width, font)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(font.getlength(line) <= width for line in lines)


def test_a_contact_sheet_shows_frames_from_first_to_last():
    (clip,) = clips(1, frames=5)
    sheet = contact_sheet({"a": clip}, columns=5, scale=1)
    assert sheet.width == 5 * 132 - 4
    pixel = torch.tensor(sheet.getpixel((4 * 132, sheet.height - 1)))
    torch.testing.assert_close(pixel / 255, clip[:, 4, -1, 0], rtol=0, atol=0.003)

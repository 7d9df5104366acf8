"""Likeness of clips, on clips whose likeness is known."""

from __future__ import annotations

import pytest
import torch

from vdit_core import metrics


def moving(by: int, first: int = 4) -> torch.Tensor:
    """A bright bar that moves by so many px a frame: (1, 3, 5, 24, 32)."""
    clip = torch.zeros(1, 3, 5, 24, 32)
    for frame in range(5):
        left = first + by * frame
        clip[:, :, frame, 8:16, left : left + 4] = 1
    return clip


def test_motion_agreement_of_equal_opposite_and_still_clips():
    right, left = moving(3), moving(-3, first=4 + 4 * 3)
    assert float(metrics.motion_agreement(right, right)) == pytest.approx(1, abs=1e-5)
    assert float(metrics.motion_agreement(right, 1 - right)) == pytest.approx(-1, abs=1e-5)
    assert float(metrics.motion_agreement(right, moving(0))) == 0
    assert float(metrics.motion_agreement(right, left)) < 0.3


def test_motion_agreement_does_not_mind_brightness_and_contrast():
    right = moving(3)
    assert float(metrics.motion_agreement(right, 0.2 + 0.3 * right)) == pytest.approx(1, abs=1e-4)


def test_motion_agreement_is_the_mean_over_frame_pairs():
    a, b = moving(3), moving(3)
    b[:, :, 3:] = b[:, :, 2:3]  # the last two of four changes are gone
    assert float(metrics.motion_agreement(a, b)) == pytest.approx(0.5, abs=1e-5)


def test_motion_agreement_is_one_number_a_clip():
    clips = torch.cat([moving(3), moving(2)])
    assert metrics.motion_agreement(clips, clips).shape == (2,)


def test_flip_of_equal_near_and_far_clips():
    clip = moving(3)
    red = clip.clone()
    red[:, 1:] *= 0.5
    assert float(metrics.flip(clip, clip)) == 0
    assert 0 < float(metrics.flip(clip, red)) < float(metrics.flip(clip, 1 - clip)) <= 1
    assert metrics.flip(torch.cat([clip, clip]), torch.cat([clip, red])).tolist()[0] == 0


def test_flip_sees_the_first_and_the_last_frame():
    clip = moving(0)
    for frame in (0, 4):
        other = clip.clone()
        other[:, :, frame] = 0.5
        assert float(metrics.flip(clip, other, frames=2)) > 0.05


def test_a_single_frame_has_no_motion():
    with pytest.raises(ValueError, match="single frame"):
        metrics.motion_agreement(moving(3)[:, :, :1], moving(3)[:, :, :1])

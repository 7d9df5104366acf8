"""Clips side by side, as a video that can be written whatever their size."""

from __future__ import annotations

import pytest
import torch

from vdit_core.reporting.labelled import side_by_side
from vdit_core.reporting.video import write_mp4


@pytest.mark.parametrize(("height", "width"), [(32, 48), (33, 48), (32, 47), (33, 47)])
@pytest.mark.parametrize("scale", [1, 2])
def test_clips_of_any_size_become_a_video(tmp_path, height, width, scale):
    clips = {name: torch.rand(3, 4, height, width) for name in ("dense", "keep 30%, uniform")}
    pictures = side_by_side(clips, scale)
    assert len(pictures) == 4
    assert all(side % 2 == 0 for side in pictures[0].size)
    write_mp4(pictures, tmp_path / "video.mp4")
    assert (tmp_path / "video.mp4").stat().st_size

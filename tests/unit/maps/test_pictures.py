"""Pictures of maps: what a pixel shows."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch

from vdit_core.call import TokenGrid
from vdit_core.maps import pictures
from vdit_core.reporting.figures import PALETTE

LEFT, TOP, _, _ = pictures._MARGINS
ONE_FRAME = TokenGrid(1, 100, 100)  # no frame lines within


@pytest.mark.parametrize(
    ("cells", "px"), [((320, 320), (2, 2)), ((512, 512), (2, 2)), ((700, 700), (1, 1)), ((32, 512), (32, 2))]
)
def test_a_weight_is_a_whole_number_of_pixels(cells, px):
    weights = torch.rand(cells, generator=torch.Generator().manual_seed(0))
    drawn = np.asarray(pictures.map_picture(weights, ONE_FRAME, "", log=False, limits=(0, 1))).astype(int)
    height, width = (n * edge for n, edge in zip(cells, px, strict=True))
    inside = drawn[TOP : TOP + height, LEFT : LEFT + width]
    centre = inside[px[0] // 2 :: px[0], px[1] // 2 :: px[1]]
    assert centre.shape[:2] == cells
    expected = (np.asarray(matplotlib.colormaps[pictures.COLORS](weights.numpy()))[..., :3] * 255).round()
    off = np.abs(centre - expected).max(-1)[2:-2, 2:-2]  # the axes' own lines are over the rim
    assert (off <= 2).all()


def test_parts_of_other_shapes_keep_a_readable_height_and_even_sizes():
    for cells, rows in (((100, 700), (0, 100)), ((1, 3), (5, 6)), ((333, 7), (0, 333))):
        drawn = pictures.map_picture(torch.rand(cells), ONE_FRAME, "", rows, (0, cells[1]))
        assert min(drawn.size) >= 300
        assert not any(side % 2 for side in drawn.size)


@pytest.mark.parametrize("layers", [1, 9, 30])
def test_locality_of_few_layers_is_lines_and_of_many_rows(layers):
    generator = torch.Generator().manual_seed(0)
    curves = {i: (torch.rand(21, generator=generator), torch.rand(60, generator=generator)) for i in range(layers)}
    drawn = pictures.decay_picture(curves, "Locality")
    colours = {colour for _, colour in drawn.getcolors(1 << 20)}
    lines = [tuple(int(text[i : i + 2], 16) for i in (1, 3, 5)) for text in PALETTE]
    assert (lines[0] in colours) == (layers < 30)
    assert drawn.height <= 900


def test_thirty_layers_of_frames_fit_a_screen():
    drawn = pictures.frames_picture(torch.rand(30, 21, 21), [f"layer {i}" for i in range(30)], "Frames")
    assert drawn.width <= 1300
    assert drawn.height <= 1300

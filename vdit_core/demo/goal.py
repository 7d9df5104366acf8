"""What a goal can name on the demo model: what the attribute probe reads, beside what can be measured of any clips."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..sweep.goal import Measure, Measures
from ..sweep.pixel_measures import pixel_measures
from .pairs import DISTANCES, EDITS, apart
from .probe import AttributeProbe, Reading


class View(NamedTuple):
    """A clip, and what the probe reads of it."""

    clip: Tensor
    reading: Reading


def measures(probe: AttributeProbe) -> Measures:
    """The pixel measures; x, y, size, horizon and pan by their distance in px, mean over frames; object, colour, place
    and season by how far the probe sees the same: the overlap of its probabilities over the classes."""

    @torch.no_grad()
    def look(clip: Tensor) -> View:
        return View(clip, probe(clip.to(next(probe.parameters()).device)))

    table = {name: _of_clips(measure) for name, measure in pixel_measures().items()}
    table |= {name: _distance(name) for name in DISTANCES}
    table |= {name: _overlap(name) for name in EDITS}
    return Measures(table, look)


def _of_clips(measure: Measure) -> Measure:
    return Measure(lambda a, b: measure.likeness(a.clip, b.clip), measure.top, measure.least, measure.unit)


def _distance(name: str) -> Measure:
    return Measure(lambda a, b: -apart(a.reading, b.reading)[name], top=0.0, least=1.0, unit=" px")


def _overlap(name: str) -> Measure:
    def overlap(a: View, b: View) -> float:
        x, y = (getattr(view.reading, name).softmax(-1) for view in (a, b))
        return float(torch.minimum(x, y).sum())

    return Measure(overlap)

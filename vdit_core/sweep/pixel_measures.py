"""What a goal can name of any clips, without knowing what they show."""

from __future__ import annotations

from importlib.util import find_spec

from .. import metrics
from .goal import Measure


def pixel_measures() -> dict[str, Measure]:
    """What moves, where edges are, structural similarity, which colours there are; FLIP where its package is there."""
    flip = {"flip": Measure(lambda a, b: -float(metrics.flip(a, b)), top=0.0)} if find_spec("flip_evaluator") else {}
    return {
        "motion": Measure(lambda a, b: float(metrics.motion_agreement(a, b))),
        "edges": Measure(lambda a, b: float(metrics.edge_correlation(a, b))),
        "ssim": Measure(lambda a, b: float(metrics.ssim(a, b))),
        "palette": Measure(lambda a, b: float(metrics.palette_overlap(a, b))),
    } | flip

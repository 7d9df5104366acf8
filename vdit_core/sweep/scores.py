"""What a sweep found: how alike each row is to the source and to the plain target, and which layers carry structure.

Structure share: s is the edge correlation with the source, which says where things are whatever their colour;
    share(row) = (s(row) - s(plain)) / (1 - s(plain))
is the part of the way from the plain target to the source itself: 0 is no nearer than the plain target, 1 is the
source, below 0 is farther.

Gain of a layer: what it adds to the share. "each", and head groups: its row's share. "first" and "last": its row's
share less that of the row before it joined. "all but one": the best row's share less that of the row without it.

Suggested: the layers or head groups whose gain is at least half of the greatest gain, and at least MIN_GAIN; there may
be none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from .. import metrics
from ..head_mask import HeadMask
from ..reporting.tables import markdown
from ..selection import LayerMask
from .groups import union
from .plan import PLAIN, ROWS, SOURCE, Sweep

#: All but FLIP are larger for what is more alike; FLIP is a distance, and NaN where its package is not installed.
LIKENESS = ("ssim", "psnr", "flip", "edges", "motion")

#: A layer that brings the target less than this part of the way to the source stands out from nothing.
MIN_GAIN = 0.05


@dataclass(frozen=True)
class Row:
    """Scores of one row. to_source, to_plain: by LIKENESS; more: what else the host measured of it.

    gain: of the layer with the row's number, or of the head group.
    """

    label: str
    mask: LayerMask | HeadMask
    to_source: Mapping[str, float]
    to_plain: Mapping[str, float]
    more: Mapping[str, float]
    share: float
    gain: float


@dataclass(frozen=True)
class Result:
    """Scores of a sweep: one row a layer or a head group.

    plain, plain_more: the plain target's, against the source. suggested: a head mask where rows are head groups.
    """

    sweep: Sweep
    plain: Mapping[str, float]
    plain_more: Mapping[str, float]
    rows: tuple[Row, ...]
    suggested: LayerMask | HeadMask

    def suggested_rows(self) -> list[int]:
        """The numbers of the rows that stand out."""
        return standing_out([row.gain for row in self.rows])

    def verdict(self) -> str:
        """Which layers or head groups carry structure, in a sentence."""
        chosen, heads = self.suggested_rows(), self.sweep.of_heads
        if chosen and heads:
            return f"Structure heads (*): {'; '.join(self.rows[i].label for i in chosen)}."
        if chosen:
            return f"Structure layers (*): {', '.join(map(str, chosen))}."
        best = max(range(len(self.rows)), key=lambda i: self.rows[i].gain)
        gain = round(self.rows[best].gain, 2) + 0  # no -0.00
        one, name = ("head group", self.rows[best].label) if heads else ("layer", f"layer {best}")
        return f"No {one} stands out: the best, {name}, gains {gain:.2f} of the way to the source."

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it, rounded to four places."""
        swept = [
            {
                "label": row.label,
                "mask": str(row.mask),
                "to_source": _rounded(row.to_source),
                "to_plain": _rounded(row.to_plain),
                "more": _rounded(row.more),
                "share": round(row.share, 4),
                "gain": round(row.gain, 4),
            }
            for row in self.rows
        ]
        heads = {"heads": self.suggested.heads} if isinstance(self.suggested, HeadMask) else {}
        return {
            "settings": self.sweep.settings() | {"mode": self.sweep.mode},
            "plain": {"to_source": _rounded(self.plain), "more": _rounded(self.plain_more)},
            "rows": swept,
            "suggested": {"mask": str(self.suggested), "layers": self.sweep.layers} | heads,
        }

    def as_text(self) -> str:
        """A table (Markdown), against the source: the plain target, then the rows; a star marks what stands out."""
        more = list(self.plain_more)
        heads = ["", "share", "gain", *LIKENESS, *more]
        lines = [["plain", "", "", *_cells(self.plain, LIKENESS), *_cells(self.plain_more, more)]]
        stars = self.suggested_rows()
        for i, row in enumerate(self.rows):
            label = f"{row.label} *" if i in stars else row.label
            numbers = [f"{row.share:.3f}", f"{row.gain:.3f}"]
            lines.append([label, *numbers, *_cells(row.to_source, LIKENESS), *_cells(row.more, more)])
        return markdown(heads, lines, aligned=True)


def measure(sweep: Sweep, clips: Tensor, more: Sequence[Mapping[str, float]] | None = None) -> Result:
    """Score a sweep.

    Args:
        clips: float in [0, 1], (videos, 3, frames, height, width), in the order of `Sweep.videos`.
        more: what else the host measured of each video against the source, from the plain target on.

    Raises:
        ValueError: if there are not as many clips as the sweep has videos, or they have a single frame.
    """
    videos = sweep.videos()
    if len(clips) != len(videos):
        raise ValueError(f"There are {len(clips)} clips for a sweep of {len(videos)} videos.")
    extras = more or [{}] * (len(videos) - 1)
    to_source = [likeness(clips, SOURCE, n) for n in range(PLAIN, len(videos))]
    shares = [share(scores["edges"], to_source[0]["edges"]) for scores in to_source[1:]]
    gains = layer_gains(sweep.mode, shares)
    swept = []
    for i, (video, gained) in enumerate(zip(videos[ROWS:], gains, strict=True)):
        to_plain = likeness(clips, PLAIN, ROWS + i)
        swept.append(Row(video.label, video.mask, to_source[1 + i], to_plain, extras[1 + i], shares[i], gained))
    suggested = suggest_heads(sweep, gains) if sweep.of_heads else suggest(gains)
    return Result(sweep, to_source[0], extras[0], tuple(swept), suggested)


def likeness(clips: Tensor, a: int, b: int) -> dict[str, float]:
    """How alike two of the clips are, by LIKENESS."""
    x, y = clips[a : a + 1], clips[b : b + 1]
    return {
        **asdict(metrics.quality(x, y)),
        "edges": float(metrics.edge_correlation(x, y)),
        "motion": float(metrics.motion_agreement(x, y)),
    }


def share(row: float, plain: float) -> float:
    """The structure share of a row, from its likeness to the source and the plain target's; 0 if that is the source."""
    return 0.0 if plain > 1 - 1e-6 else (row - plain) / (1 - plain)


def layer_gains(mode: str, shares: Sequence[float]) -> list[float]:
    """What each layer adds to the share, from the rows' shares."""
    if mode == "first":
        return [after - before for before, after in zip([0.0, *shares[:-1]], shares, strict=True)]
    if mode == "last":
        return [after - before for before, after in zip([*shares[1:], 0.0], shares, strict=True)]
    if mode == "all but one":
        return [max(shares) - without for without in shares]
    return list(shares)


def standing_out(gains: Sequence[float]) -> list[int]:
    """The numbers of the gains that are at least half of the greatest and at least MIN_GAIN."""
    least = max(max(gains) / 2, MIN_GAIN)
    return [i for i, gain in enumerate(gains) if gain >= least]


def suggest(gains: Sequence[float]) -> LayerMask:
    """The layers whose gain stands out, as a mask made for so many."""
    return LayerMask.of(standing_out(gains), made_for=len(gains))


def suggest_heads(sweep: Sweep, gains: Sequence[float]) -> HeadMask:
    """The heads of the groups whose gain stands out."""
    made_for = sweep.groups[0].mask
    none = HeadMask("none", made_for.layers, made_for.heads)
    return union([none, *(sweep.groups[i].mask for i in standing_out(gains))])


def _cells(scores: Mapping[str, float], names: Sequence[str]) -> list[str]:
    def cell(name: str) -> str:
        if not math.isfinite(scores[name]):
            return "–"
        return f"{scores[name]:.3f}" if name in LIKENESS and name != "psnr" else f"{scores[name]:.1f}"

    return list(map(cell, names))


def _rounded(scores: Mapping[str, float]) -> dict[str, float | None]:
    return {name: round(value, 4) if math.isfinite(value) else None for name, value in scores.items()}

"""What a sweep samples: the source, the plain target, and the target under a row of layer or head masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..head_mask import HeadMask
from ..selection import LayerMask
from ..transfer import LiveTransfer, TransferConfig
from .groups import HEAD_MODES, HeadGroup

#: Which layers row i takes from the source: i alone, 0 to i, i to the last, or all but i.
MODES = ("each", "first", "last", "all but one")

#: Videos in a batch, the source among them: a batch is what an interrupt may lose, and each one costs a source.
AT_ONCE = 8

#: The places of the source and of the plain target among a sweep's videos; the rows follow.
SOURCE, PLAIN, ROWS = 0, 1, 2


def rows(mode: str, layers: int) -> list[tuple[str, LayerMask]]:
    """Label and mask of each row of a sweep of layers: one row a layer, in the layers' order.

    Raises:
        ValueError: if there is no such mode, or no layer.
    """
    if mode not in MODES:
        raise ValueError(f"There is no sweep {mode!r}; the modes are {', '.join((*MODES, *HEAD_MODES))}.")
    if layers < 1:
        raise ValueError(f"A model of {layers} layers cannot be swept.")
    return [_row(mode, i, layers) for i in range(layers)]


def _row(mode: str, i: int, layers: int) -> tuple[str, LayerMask]:
    if mode == "all but one":
        return f"all but layer {i}", LayerMask(f"all, {i}:0", layers)
    low, high = {"each": (i, i), "first": (0, i), "last": (i, layers - 1)}[mode]
    if low == high:
        return f"layer {i}", LayerMask(f"{i}", layers)
    return f"layers {low}-{high}", LayerMask(f"{low}-{high}", layers)


@dataclass(frozen=True)
class Video:
    """One video of a sweep. name: a file's stem."""

    name: str
    label: str
    prompt: str
    mask: LayerMask | HeadMask


@dataclass(frozen=True)
class Sweep:
    """All that decides what a sweep's videos are.

    layers: of the model. mode: one of MODES, or of `groups.HEAD_MODES`; then `groups` are the rows. where: steps, heads
    and branches; its own layers do not count. host: the host's settings by name (model, seed, steps, ...), as JSON has
    them.

    Raises:
        ValueError: if there is no such mode or no layer, if a sweep of head groups has none, or groups that are alike
            or made for a model of other layers, or if a sweep of layers has groups.
    """

    source: str
    target: str
    layers: int
    mode: str = "each"
    where: TransferConfig = field(default_factory=TransferConfig)
    host: Mapping[str, str | int | float] = field(default_factory=dict)
    groups: tuple[HeadGroup, ...] = ()

    def __post_init__(self) -> None:
        if self.mode not in HEAD_MODES:
            rows(self.mode, self.layers)
            if self.groups:
                raise ValueError(
                    f"The sweep {self.mode!r} is of layers and has {len(self.groups)} head groups; "
                    f"the modes of head groups are {', '.join(HEAD_MODES)}."
                )
            return
        if not self.groups:
            raise ValueError(f"The sweep {self.mode!r} has no head group; give it at least one.")
        seen: dict[str, str] = {}
        for group in self.groups:
            if group.mask.layers != self.layers:
                raise ValueError(
                    f"The head group {group.label!r} was made for a model of {group.mask.layers} layers, "
                    f"not {self.layers}. Make it for this model."
                )
            if group.name in seen:
                raise ValueError(
                    f"The head groups {seen[group.name]!r} and {group.label!r} are the same heads. Leave one out."
                )
            seen[group.name] = group.label

    @property
    def of_heads(self) -> bool:
        """Whether the rows are head groups."""
        return self.mode in HEAD_MODES

    def videos(self) -> list[Video]:
        """The source, the plain target, and one row a layer or a head group."""
        none = LayerMask("none", self.layers)
        source = Video("source", f"source: {self.source}", self.source, none)
        plain = Video("plain", f"plain: {self.target}", self.target, none)
        if self.of_heads:
            return [source, plain, *(Video(g.name, g.label, self.target, g.mask) for g in self.groups)]
        swept = [
            Video(f"row-{i:02d}", label, self.target, mask)
            for i, (label, mask) in enumerate(rows(self.mode, self.layers))
        ]
        return [source, plain, *swept]

    def transfer(self, batch: Sequence[int]) -> LiveTransfer:
        """The transfer for a batch of videos, by number, the source first."""
        videos = self.videos()
        return LiveTransfer(self.where, [videos[n].mask for n in batch[1:]])

    def settings(self) -> dict[str, Any]:
        """By name, as JSON has them: two sweeps with the same settings sample the same videos under the same names.

        A video of a head group is named after its mask, so all sweeps of head groups share one mode here.
        """
        return {
            "source": self.source,
            "target": self.target,
            "layers": self.layers,
            "mode": "head groups" if self.of_heads else self.mode,
            "steps of transfer": str(self.where.steps),
            "heads": str(self.where.heads),
            "branches": self.where.branches,
            **self.host,
        }


def batches(missing: Sequence[int], rows_per_batch: int = AT_ONCE) -> list[tuple[int, ...]]:
    """The batches that sample the missing videos, by number; the source is the first of every batch.

    A sweep of L layers costs the source, the plain target and L videos, and a source more for every batch but the
    first. rows_per_batch: videos in a batch, the source among them, at least 2.

    Raises:
        ValueError: if not even the source and one target fit a batch.
    """
    if rows_per_batch < 2:
        raise ValueError(
            f"A batch of {rows_per_batch} holds no target beside the source: use at least 2 rows per batch."
        )
    targets = [n for n in missing if n != SOURCE]
    if not targets:
        return [(SOURCE,)] if missing else []
    count = -(-len(targets) // (rows_per_batch - 1))
    size = -(-len(targets) // count)  # as many in each: a last batch of one would cost two
    return [(SOURCE, *targets[first : first + size]) for first in range(0, len(targets), size)]

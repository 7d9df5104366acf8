"""Which map is shown: its choice, the part of it that is enlarged, and its words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ..call import Run, TokenGrid
from ..recording.store import Evaluation, Key
from .crop import Crop
from .statistics import MapStatistics

#: At most so many frames are enlarged, and never more than half of them.
_BAND_FRAMES = 4


@dataclass(frozen=True)
class View:
    """Which map is shown: of one layer and evaluation; head None is the mean over heads."""

    key: Key
    head: int | None = None
    sample: int = 0


def choose_view(
    calls: Sequence[Key],
    run: Run,
    heads: Sequence[int],
    branch: str = "cond",
    layer: int = -1,
    step: int = -1,
    head: int = -1,
    sample: int = 0,
) -> View:
    """A map to show, out of the calls that are looked at; -1 is the middle one of their layers or steps, and the mean
    over heads. Branch "all" is the first there is.

    Raises:
        ValueError: naming what is not looked at, and what is.
    """
    branch = calls[0].branch if branch == "all" else branch
    for name, chosen, there in (("head", head, list(heads)), ("sample", sample, list(range(run.samples)))):
        if chosen not in (-1, *there):
            raise ValueError(f"There is no map of {name} {chosen}; there are {name}s {there}.")
    keys = [key for key in calls if key.branch == branch]
    for name, wanted, read in (
        ("step", step, lambda key: run.step_of(key.evaluation.sigma)),
        ("layer", layer, lambda key: key.layer),
    ):
        there = sorted({read(key) for key in keys})
        chosen = there[len(there) // 2] if wanted < 0 and there else wanted
        if chosen not in there:
            raise ValueError(f"There is no map of {name} {chosen}, branch {branch!r}; there are {name}s {there}.")
        keys = [key for key in keys if read(key) == chosen]
    return View(keys[0], None if head < 0 else head, max(0, sample))


def choose_crop(grid: TokenGrid, rows: str = "", columns: str = "") -> Crop:
    """A part of a map: tokens as "first-last", both included; "" is a few frames in the middle.

    Raises:
        ValueError: if the text cannot be read, or the part does not lie within the map.
    """
    size = grid.height * grid.width
    count = max(1, min(_BAND_FRAMES, grid.frames // 2))
    first = grid.prefix + (grid.frames - count) // 2 * size
    read = {name: _tokens(text, name) for name, text in (("rows", rows), ("columns", columns)) if text.strip()}
    middle = (first, first + count * size)
    window = Crop(read.get("rows", middle), read.get("columns", middle))
    window.check(grid.tokens)
    return window


def _tokens(text: str, name: str) -> tuple[int, int]:
    match = re.fullmatch(r"\s*(\d+)\s*-\s*(\d+)\s*", text, re.ASCII)
    if match is None:
        raise ValueError(f"Cannot read {name} {text!r}: write tokens as first-last, such as 0-1023.")
    return int(match[1]), int(match[2]) + 1


@dataclass
class Shown:
    """The shown map at every evaluation, pooled: collected by `observer.from_store`, which lets go of all others.

    heads: those that are observed. maps: float32 (P, P').
    """

    run: Run
    heads: tuple[int, ...]
    view: View
    maps: dict[Evaluation, Tensor] = field(default_factory=dict)

    def looks_at(self, key: Key) -> bool:
        """Whether a call's whole statistics are needed, or their small part will do."""
        return (key.branch, key.layer) == (self.view.key.branch, self.view.key.layer)

    def __call__(self, key: Key, found: MapStatistics) -> None:
        if self.looks_at(key) and found.pooled is not None:
            self.maps[key.evaluation] = one_map(found.pooled.value, self.heads, self.view)


def one_map(values: Tensor, heads: Sequence[int], view: View) -> Tensor:
    """The shown map out of (samples, heads, ..)."""
    of_sample = values[view.sample]
    return of_sample.mean(0) if view.head is None else of_sample[list(heads).index(view.head)].clone()


def title(run: Run, view: View) -> str:
    """Which map this is, in words; layer -1 is not named."""
    head = "mean of heads" if view.head is None else f"head {view.head}"
    evaluation = view.key.evaluation
    parts = [f"layer {view.key.layer}, {head}" if view.key.layer >= 0 else head]
    parts.append(f"step {run.step_of(evaluation.sigma)} of 0-{run.steps - 1} (noise {evaluation.sigma:.2f})")
    parts.append(view.key.branch + (f", sample {view.sample}" if run.samples > 1 else ""))
    return " · ".join(parts)

"""How two runs differ, in the words of whoever set them up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from .call import TokenGrid
from .provenance import Provenance

_SAME_VALUE = 0.03  # bfloat16 rounds noise by up to this


class Made(Protocol):
    """Whatever is of one run: the run itself, or the header of its recording."""

    @property
    def grid(self) -> TokenGrid: ...
    @property
    def sigmas(self) -> tuple[float, ...]: ...
    @property
    def made(self) -> Provenance: ...


def other_noise(source: Provenance, target: Provenance) -> list[int]:
    """The target's samples that start from other noise than the source; none if either is not known.

    A source of one sample is the source of every target; of several, each target has its own.
    """
    if not source.noise or not target.noise:
        return []
    sources = source.noise if len(source.noise) > 1 else source.noise * len(target.noise)
    return [n for n, (a, b) in enumerate(zip(sources, target.noise, strict=False)) if not _same_noise(a, b)]


def _same_noise(a: Sequence[float], b: Sequence[float]) -> bool:
    return len(a) == len(b) and all(abs(x - y) <= _SAME_VALUE for x, y in zip(a, b, strict=True))


def explain(source: Made, target: Made) -> str:
    """Both runs' settings: the source's main ones and all that differ, and of the target what differs.

    "Source: 4 steps, shift 3, cfg 5, 128×128×17. Target: 5 steps."
    """
    told: list[list[str]] = [[], []]
    for words, always in _ASPECTS:
        of_source, of_target = words(source), words(target)
        differ = None not in (of_source, of_target) and of_source != of_target
        if of_source is not None and (always or differ):
            told[0].append(of_source)
        if of_target is not None and differ:
            told[1].append(of_target)
    if not told[1]:
        words = _levels if source.grid == target.grid else _tokens
        told[0].append(words(source))
        told[1].append(words(target))
    return f"Source: {', '.join(told[0])}. Target: {', '.join(told[1])}."


def mismatches(source: Made, target: Made) -> list[str]:
    """What makes a transfer between two runs less than it should be, though every call can be replaced: half a
    sentence for each."""
    found = []
    one, other = source.made, target.made
    if videos := other_noise(one, other):
        who = "the target" if len(other.noise) == 1 or len(videos) == len(other.noise) else _videos(videos)
        seeds = f" (source: seed {one.seed}, target: seed {other.seed})" if _differ(one.seed, other.seed) else ""
        remedy = ": use one seed for both" if seeds else ""
        found.append(f"{who} started from other noise than the source{seeds}{remedy}")
    if _differ(one.sampler, other.sampler):
        found.append(f"another sampler (source: {one.sampler}, target: {other.sampler})")
    return found


def _videos(numbers: Iterable[int]) -> str:
    return f"videos {', '.join(map(str, numbers))} of the batch"


def _differ(a: object, b: object) -> bool:
    return None not in (a, b) and a != b


def _steps(run: Made) -> str:
    return f"{len(run.sigmas)} steps" if len(run.sigmas) != 1 else "1 step"


def _size(run: Made) -> str:
    made, grid = run.made, run.grid
    size = (made.width, made.height, made.frames)
    text = _tokens(run) if None in size else "×".join(map(str, size))
    extra = f" + {grid.prefix} tokens of a reference" * bool(grid.prefix)
    return text + extra + f" + {grid.suffix} further tokens" * bool(grid.suffix)


def _tokens(run: Made) -> str:
    grid = run.grid
    return f"{grid.frames} x {grid.height} x {grid.width} tokens"


def _start(run: Made) -> str:
    """Where in the noise schedule the run begins."""
    return f"noise from {run.sigmas[0]:.2f}"


def _levels(run: Made) -> str:
    shown = ", ".join(f"{sigma:.3f}" for sigma in run.sigmas[:4])
    return f"noise levels {shown}" + ", ..." * (len(run.sigmas) > 4)


def _number(name: str) -> Callable[[Made], str | None]:
    def words(run: Made) -> str | None:
        value = getattr(run.made, name)
        return None if value is None else f"{name} {value:g}"

    return words


def _seed(run: Made) -> str | None:
    return None if run.made.seed is None else f"seed {run.made.seed}"


def _scheduler(run: Made) -> str | None:
    return None if run.made.scheduler is None else f"scheduler {run.made.scheduler}"


def _sampler(run: Made) -> str | None:
    return None if run.made.sampler is None else f"sampler {run.made.sampler}"


#: What there is to say of a run, and whether it is always said of the source.
_ASPECTS: tuple[tuple[Callable[[Made], str | None], bool], ...] = (
    (_steps, True),
    (_number("shift"), True),
    (_number("cfg"), True),
    (_size, True),
    (_scheduler, False),
    (_number("denoise"), False),
    (_start, False),
    (_sampler, False),
    (_seed, False),
)

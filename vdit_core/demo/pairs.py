"""The main job: the paper's pairs of prompts, with and without the source's attention maps, measured.

For each pair and seed there are four clips: the source, the target from the same noise ("plain"), the target with the
source's attention maps ("transfer"), and the source prompt from other noise ("other seed": how far apart two unrelated
clips are). All but the first are compared with the source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import metrics
from ..hosts.diffusers import attach
from ..record import Recorder
from ..transfer import Report, Transfer, Where
from .captions import Caption
from .model import GUIDANCE, STEPS, DemoModel
from .probe import AttributeProbe, Reading


@dataclass(frozen=True)
class Pair:
    """A source prompt and a target prompt that changes one thing."""

    name: str
    source: Caption
    target: Caption


_CAR = Caption("car")
PAIRS = {
    pair.name: pair
    for pair in (
        Pair("red", _CAR, Caption("car", colour="red")),
        Pair("winter", _CAR, Caption("car", season="winter")),
        Pair("truck", _CAR, Caption("truck")),
        Pair("dog", _CAR, Caption("dog", place="grass")),
    )
}

#: Distances to the source in px (mean over frames and seeds), two likenesses, and shares of clips that show the edit.
DISTANCES = ("x", "y", "size", "horizon", "pan")
LIKENESS = ("ssim", "edges")
EDITS = ("object", "colour", "place", "season")


@dataclass(frozen=True)
class PairResult:
    """The clips of a pair, float in [0, 1], (seeds, 3, frames, height, width) on the CPU, and their scores.

    A score maps each name of DISTANCES and LIKENESS to its mean; `plain` and `transfer` also hold the share of clips
    that show each thing the target's caption names (EDITS).
    """

    pair: Pair
    seeds: tuple[int, ...]
    source: Tensor
    plain: Tensor
    transfer: Tensor
    scores: dict[str, dict[str, float]]
    report: Report


def choose(names: str) -> list[Pair]:
    """The pairs of a comma-separated list, or all.

    Raises:
        ValueError: naming an unknown pair and the known ones.
    """
    chosen = list(PAIRS) if names == "all" else [name.strip() for name in names.split(",")]
    for name in chosen:
        if name not in PAIRS:
            raise ValueError(f"There is no pair {name!r}; the pairs are {', '.join(PAIRS)}, or all.")
    return [PAIRS[name] for name in chosen]


def generations(pairs: Sequence[Pair]) -> int:
    """How many generations `run` makes for these pairs: two per source, two per pair."""
    return 2 * len({pair.source for pair in pairs}) + 2 * len(pairs)


def run(
    model: DemoModel,
    probe: AttributeProbe,
    pairs: Sequence[Pair],
    seeds: Sequence[int],
    where: Where | None = None,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    on_step: Callable[[], None] | None = None,
) -> list[PairResult]:
    """Generate and measure pairs; the seeds of a pair are one batch, and a source is generated and recorded once."""

    def clips(prompt: Caption, noise_seeds: Sequence[int]) -> Tensor:
        prompts = [str(prompt)] * len(noise_seeds)
        return model.generate(prompts, noise_seeds, steps=steps, guidance=guidance, on_step=on_step)

    results = []
    for source_prompt in dict.fromkeys(pair.source for pair in pairs):
        recorder = Recorder(device=None)
        with attach(model.pipe, recorder):
            source = clips(source_prompt, seeds)
        other = clips(source_prompt, [seed + 10_000 for seed in seeds])
        seen = _read(probe, source)
        floor = distances(source, seen, other, _read(probe, other))
        for pair in (p for p in pairs if p.source == source_prompt):
            plain = clips(pair.target, seeds)
            transfer = Transfer(recorder.store, where)
            with attach(model.pipe, transfer):
                edited = clips(pair.target, seeds)
            scores = {"other_seed": floor}
            for name, video in (("plain", plain), ("transfer", edited)):
                reading = _read(probe, video)
                scores[name] = distances(source, seen, video, reading) | edits(pair.target, reading)
            results.append(PairResult(pair, tuple(seeds), source.cpu(), plain.cpu(), edited.cpu(), scores, transfer.report))
    return results


@torch.no_grad()
def _read(probe: AttributeProbe, video: Tensor) -> Reading:
    return probe(video)


def distances(source: Tensor, seen: Reading, video: Tensor, reading: Reading) -> dict[str, float]:
    """How far clips are from their sources; see `DISTANCES` and `LIKENESS`."""

    def apart(name: str) -> float:
        return float((getattr(reading, name) - getattr(seen, name)).abs().mean())

    return {
        "x": apart("x"),
        "y": apart("y"),
        "size": (apart("width") + apart("height")) / 2,
        "horizon": apart("horizon"),
        "pan": apart("pan"),
        "ssim": float(metrics.ssim(source, video).mean()),
        "edges": float(metrics.edge_correlation(source, video).mean()),
    }


def edits(wanted: Caption, reading: Reading) -> dict[str, float]:
    """Share of clips in which the probe sees what the caption names."""
    named = {attribute: getattr(wanted, attribute) for attribute in EDITS}
    return {
        attribute: sum(name == value for name in reading.names(attribute)) / len(reading.x)
        for attribute, value in named.items()
        if value is not None
    }

"""The main job: the paper's pairs of prompts, with and without the source's attention maps, measured.

For each pair and seed there are four clips: the source, the target from the same noise ("plain"), the target with the
source's attention maps ("transfer"), and the source prompt from other noise ("other seed": how far apart two unrelated
clips are). All but the first are compared with the source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .. import metrics
from ..hosts.diffusers import attach
from ..recording.recorder import Recorder
from ..tiny_wan.captions import Caption
from ..tiny_wan.files import GUIDANCE, STEPS
from ..transfer import Transfer, TransferConfig, TransferReport
from .model import DemoModel
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

#: Seeds per batch: a recording of 8 weighs 1.8 GB. The other seed's distance from the seed.
BATCH, OTHER = 8, 10_000


@dataclass(frozen=True)
class PairResult:
    """Clips and scores of a pair.

    source, plain, transfer: the clips of the first seeds, float in [0, 1], (clips, 3, frames, height, width), on CPU.
    scores: for "plain", "transfer" and "other_seed" the mean over all seeds of each name of DISTANCES and LIKENESS;
    the first two also hold the share of clips that show each thing the target's caption names (EDITS).
    """

    pair: Pair
    seeds: tuple[int, ...]
    source: Tensor
    plain: Tensor
    transfer: Tensor
    scores: dict[str, dict[str, float]]
    report: TransferReport


def choose(names: str) -> list[Pair]:
    """The pairs of a comma-separated list, each once, or all.

    Raises:
        ValueError: naming an unknown pair and the known ones.
    """
    chosen = dict.fromkeys(PAIRS if names == "all" else (name.strip() for name in names.split(",")))
    for name in chosen:
        if name not in PAIRS:
            raise ValueError(f"There is no pair {name!r}; the pairs are {', '.join(PAIRS)}, or all.")
    return [PAIRS[name] for name in chosen]


def generations(pairs: Sequence[Pair], seeds: int) -> int:
    """How many batches of clips `run` generates: two per source, two per pair."""
    batches = -(-seeds // BATCH)
    return batches * 2 * (len({pair.source for pair in pairs}) + len(pairs))


def run(
    model: DemoModel,
    probe: AttributeProbe,
    pairs: Sequence[Pair],
    seeds: Sequence[int],
    where: TransferConfig | None = None,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    on_step: Callable[[], None] | None = None,
) -> list[PairResult]:
    """Generate and measure pairs, BATCH seeds at a time; a source is generated and recorded once for its targets."""
    batches: dict[Pair, list[PairResult]] = {pair: [] for pair in pairs}
    for source_prompt in dict.fromkeys(pair.source for pair in pairs):
        targets = [pair for pair in pairs if pair.source == source_prompt]
        for first in range(0, len(seeds), BATCH):
            some = tuple(seeds[first : first + BATCH])
            for result in _run_batch(model, probe, targets, some, where, steps, guidance, on_step):
                batches[result.pair].append(result)
    return [_merge(results) for results in batches.values()]


def _run_batch(
    model: DemoModel,
    probe: AttributeProbe,
    pairs: Sequence[Pair],
    seeds: tuple[int, ...],
    where: TransferConfig | None,
    steps: int,
    guidance: float,
    on_step: Callable[[], None] | None,
) -> Iterator[PairResult]:
    """The results of pairs that share their source, for one batch of seeds."""

    def clips(prompt: Caption, noise_seeds: Sequence[int]) -> tuple[Tensor, Reading]:
        prompts = [str(prompt)] * len(noise_seeds)
        video = model.generate(prompts, noise_seeds, steps=steps, guidance=guidance, on_step=on_step)
        with torch.no_grad():
            return video, probe(video)

    recorder = Recorder(tier="GPU")
    with attach(model.pipe, recorder):
        source = clips(pairs[0].source, seeds)
    floor = distances(source, clips(pairs[0].source, [seed + OTHER for seed in seeds]))
    for pair in pairs:
        plain = clips(pair.target, seeds)
        transfer = Transfer(recorder.store, where)
        with attach(model.pipe, transfer):
            edited = clips(pair.target, seeds)
        scores = {
            "plain": distances(source, plain) | edits(pair.target, plain[1]),
            "transfer": distances(source, edited) | edits(pair.target, edited[1]),
            "other_seed": floor,
        }
        yield PairResult(pair, seeds, source[0].cpu(), plain[0].cpu(), edited[0].cpu(), scores, transfer.report)


def _merge(results: list[PairResult]) -> PairResult:
    """One result for the seeds of several batches; the clips are the first batch's."""
    first = results[0]
    seeds = sum((r.seeds for r in results), ())

    def mean(kind: str, name: str) -> float:
        return sum(r.scores[kind][name] * len(r.seeds) for r in results) / len(seeds)

    scores = {kind: {name: mean(kind, name) for name in values} for kind, values in first.scores.items()}
    report = TransferReport.of_all([result.report for result in results])
    return replace(first, seeds=seeds, scores=scores, report=report)


def distances(source: tuple[Tensor, Reading], other: tuple[Tensor, Reading]) -> dict[str, float]:
    """How far clips are from their sources, both as (video, what the probe reads); see `DISTANCES` and `LIKENESS`."""
    (source_video, seen), (video, reading) = source, other

    return apart(seen, reading) | {
        "ssim": float(metrics.ssim(source_video, video).mean()),
        "edges": float(metrics.edge_correlation(source_video, video).mean()),
    }


def apart(source: Reading, other: Reading) -> dict[str, float]:
    """How far what the probe reads is from what it reads of the source, by `DISTANCES`."""
    px = {
        name: float((getattr(other, name) - getattr(source, name)).abs().mean())
        for name in ("x", "y", "width", "height", "horizon", "pan")
    }
    px["size"] = (px["width"] + px["height"]) / 2
    return {name: px[name] for name in DISTANCES}


def edits(wanted: Caption, reading: Reading) -> dict[str, float]:
    """Share of clips in which the probe sees what the caption names."""
    named = {attribute: getattr(wanted, attribute) for attribute in EDITS}
    return {
        attribute: sum(name == value for name in reading.names(attribute)) / len(reading.x)
        for attribute, value in named.items()
        if value is not None
    }

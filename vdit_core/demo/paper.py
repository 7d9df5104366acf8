"""The paper's section "Structure" (arXiv 2504.10317) on the demo model: its four experiments, measured.

`record` keeps the source's and the targets' maps; `structure.look`, `patterns` and `compare` look at them, `pairs.run`
at what a transfer does, `sweeps` at what each layer does; `verdicts` says how that goes with what the paper reports.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from ..call import TokenGrid
from ..hosts.diffusers import attach
from ..maps.compare import Likeness, compare
from ..maps.observer import from_store
from ..maps.statistics import MapStatistics
from ..maps.structure import Structure, look
from ..maps.summary import summary
from ..maps.wanted import Wanted
from ..recording.recorder import Recorder
from ..recording.store import AttentionStore, Key
from ..selection import Indices, Selection
from ..sweep.run import run as run_sweep
from ..sweep.scores import Result, Row, measure
from ..tiny_wan.files import GUIDANCE, STEPS
from . import pairs, verdicts
from .model import DemoModel
from .outlines import outlines
from .pairs import PAIRS, PairResult
from .probe import AttributeProbe
from .sweep import decode, plan, readings, sampler
from .verdicts import Verdict

#: Of how many seeds maps are looked at, and at about how many steps.
MAP_SEEDS, MAP_STEPS = 4, 6
#: The recordings: the source prompt, the targets, and the source prompt from other seeds. Whose maps are shown.
SOURCE, OTHER_SEED = "car", "other seed"
SHOWN = (SOURCE, "red", "winter")
#: What each pair changes, as `pairs.EDITS` names it.
CHANGES = {"red": "colour", "winter": "season", "truck": "object", "dog": "object"}
#: The edit that is swept layer by layer.
SWEPT = "winter"


@dataclass(frozen=True)
class Swept:
    """Sweeps of one edit. shares: of each layer, a value per seed: the part of the plain target's distance to the
    source in px (`verdicts.PATH`) that the layer's maps take away. result, clips: of the first seed."""

    seeds: tuple[int, ...]
    shares: tuple[tuple[float, ...], ...]
    result: Result
    clips: Tensor

    def means(self) -> list[float]:
        """Each layer's share, mean over seeds."""
        return [fmean(values) for values in self.shares]


@dataclass(frozen=True)
class Findings:
    """All that was measured.

    structure: of the maps of SHOWN. patterns: of each layer, mean weights by `verdicts.PLACES`. likeness: of the
    source's maps with those of each target and of OTHER_SEED. drawn: by pair, see `drawn`. settings: steps, guidance,
    device, map_seeds.
    """

    seeds: tuple[int, ...]
    settings: dict[str, str | int | float]
    structure: dict[str, Structure]
    patterns: dict[int, dict[str, float]]
    likeness: dict[str, Likeness]
    transfers: list[PairResult]
    drawn: dict[str, float]
    swept: Swept

    def verdicts(self) -> dict[str, Verdict]:
        """By the claim's name."""
        figures = summary(self.structure[SOURCE].observed)
        means = {name: found.means() for name, found in self.likeness.items()}
        cosines = {name: found["measured"]["cosine"] for name, found in means.items()}
        shuffled = fmean(found["shuffled"]["cosine"] for found in means.values())
        scores = {result.pair.name: result.scores for result in self.transfers}
        easy = {name: scores[name] for name in ("red", "winter")}
        return {
            "local": verdicts.local(figures["layers"], figures["uniform"]),
            "pattern": verdicts.pattern(self.patterns),
            "alike": verdicts.alike({name: cosines[name] for name in PAIRS}, cosines[OTHER_SEED], shuffled),
            **{name: verdicts.kept(easy[name], CHANGES[name]) for name in easy},
            "truck": verdicts.harder(scores["truck"], easy, self.drawn["truck"], CHANGES["truck"]),
            "dog": verdicts.ignored(scores["dog"], self.drawn["dog"], CHANGES["dog"]),
            "layers": verdicts.layers(self.swept.means()),
        }


@dataclass(frozen=True)
class Sampling:
    """How every clip is sampled. on_step: is told after each step how many videos took it."""

    steps: int = STEPS
    guidance: float = GUIDANCE
    on_step: Callable[[int], None] | None = None

    def of(self, videos: int) -> dict[str, Any]:
        """As the model takes it, for a batch of so many videos."""
        return {
            "steps": self.steps,
            "guidance": self.guidance,
            "on_step": None if self.on_step is None else partial(self.on_step, videos),
        }


def work(model: DemoModel, seeds: int, steps: int | None = None) -> int:
    """How many steps of videos `run` takes; `Sampling.on_step` is told as many."""
    recorded = (len(PAIRS) + 2) * min(MAP_SEEDS, seeds)
    transferred = pairs.generations(list(PAIRS.values()), seeds) * min(pairs.BATCH, seeds)
    swept = seeds * (len(model.pipe.transformer.blocks) + 2)
    return (recorded + transferred + swept) * (steps or STEPS)


def run(model: DemoModel, probe: AttributeProbe, seeds: Sequence[int], sampling: Sampling | None = None) -> Findings:
    """Do all four experiments."""
    sampling = sampling or Sampling()
    stores = record(model, seeds[:MAP_SEEDS], sampling)
    device = model.device
    structure = {name: look(stores[name], device=device) for name in SHOWN}
    where = patterns(stores[SOURCE], device)
    found = {name: compare(stores[SOURCE], store, device=device) for name, store in stores.items() if name != SOURCE}
    del stores
    together = sampling.of(min(pairs.BATCH, len(seeds)))
    transfers = pairs.run(model, probe, list(PAIRS.values()), seeds, **together)
    outlines = {result.pair.name: drawn(probe, result) for result in transfers}
    swept = sweeps(model, probe, seeds, sampling)
    settings: dict[str, str | int | float] = {
        "steps": sampling.steps,
        "guidance": sampling.guidance,
        "device": device.type,
        "map_seeds": len(seeds[:MAP_SEEDS]),
    }
    return Findings(tuple(seeds), settings, structure, where, found, transfers, outlines, swept)


def record(model: DemoModel, seeds: Sequence[int], sampling: Sampling) -> dict[str, AttentionStore]:
    """Queries and keys of the conditional branch, of about MAP_STEPS evenly spaced steps, by the recording's name."""
    source = next(iter(PAIRS.values())).source
    jobs = {SOURCE: (source, 0)} | {pair.name: (pair.target, 0) for pair in PAIRS.values()}
    jobs[OTHER_SEED] = (source, pairs.OTHER)
    chosen = Indices(f"0-{sampling.steps - 1}/{max(1, sampling.steps // MAP_STEPS)}")
    stores = {}
    for name, (prompt, shift) in jobs.items():
        recorder = Recorder(Selection(steps=chosen, branches="cond"), tier="GPU")
        with attach(model.pipe, recorder):
            noise = [seed + shift for seed in seeds]
            model.sample([str(prompt)] * len(noise), noise, **sampling.of(len(noise)))
        stores[name] = recorder.take()
    return stores


def patterns(store: AttentionStore, device: torch.device) -> dict[int, dict[str, float]]:
    """Of each layer, where its maps' weight lies: by `verdicts.PLACES`, relative to a map without preference."""
    grid = store.header.grid
    masks, maps = places(grid), dict[int, list[Tensor]]()

    def keep(key: Key, found: MapStatistics) -> None:
        assert found.pooled is not None
        maps.setdefault(key.layer, []).append(found.pooled.value.double().mean((0, 1)) * grid.tokens)

    from_store(store, wanted=Wanted(pooled=grid.tokens), device=device, show=keep)
    means = {layer: torch.stack(some).mean(0) for layer, some in sorted(maps.items())}
    return {
        layer: {name: round(float(mean[mask].mean()), 4) for name, mask in masks.items()}
        for layer, mean in means.items()
    }


def places(grid: TokenGrid) -> dict[str, Tensor]:
    """Which pairs of tokens belong to each of `verdicts.PLACES`, bool (tokens, tokens): the token itself, its place in
    other frames, the rest of its frame, everything else. For a grid without prefix."""
    token = torch.arange(grid.tokens)
    frame, place = token // (grid.height * grid.width), token % (grid.height * grid.width)
    same_frame, same_place = frame[:, None] == frame, place[:, None] == place
    kinds = (same_frame & same_place, same_place & ~same_frame, same_frame & ~same_place, ~same_frame & ~same_place)
    return dict(zip(verdicts.PLACES, kinds, strict=True))


def drawn(probe: AttributeProbe, result: PairResult) -> float:
    """How strong outlines are within the object's place under the transfer, relative to the plain target: of the clips
    that a result holds. A smear has weak ones, whatever it is the smear of."""
    strengths = []
    for clips in (result.plain, result.transfer):
        with torch.no_grad():
            total, pixels = outlines(clips, probe(clips.to(next(probe.parameters()).device)))
        strengths.append(float(total.sum() / pixels.sum()))
    return strengths[1] / strengths[0]


def sweeps(model: DemoModel, probe: AttributeProbe, seeds: Sequence[int], sampling: Sampling) -> Swept:
    """The layer sweep of SWEPT, one layer a row, for each seed; nothing is kept on disk, so a sweep is one batch."""
    pair = PAIRS[SWEPT]
    results, first = [], None
    settings: dict[str, Any] = {"steps": sampling.steps, "guidance": sampling.guidance}
    for seed in seeds:
        sweep = plan(model, str(pair.source), str(pair.target), seed=seed, **settings)
        sample = sampler(model, seed, **settings, on_step=sampling.on_step)
        clips = decode(model, run_sweep(sweep, sample, rows_per_batch=len(sweep.videos())))
        with torch.no_grad():
            results.append(measure(sweep, clips, readings(probe, str(pair.target), clips)))
        first = clips if first is None else first
    assert first is not None
    shares = zip(*([_nearer(result, row) for row in result.rows] for result in results), strict=True)
    return Swept(tuple(seeds), tuple(shares), results[0], first)


def _nearer(result: Result, row: Row) -> float:
    """The part of the plain target's distance to the source that a row's maps take away."""
    return verdicts.removed({"plain": result.plain_more, "transfer": row.more})

"""Head roles on the demo model: which heads there are, and what a transfer of each preset's heads keeps.

`measure` takes the roles from clips of the source prompt. `run` samples a source and its targets in one batch, each
target under another mask; every target is compared with the source, and with the plain target of the same noise.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import torch
from torch import Tensor

from ..head_mask import HeadMask
from ..hosts.diffusers import attach
from ..roles.classify import Roles, head_roles
from ..roles.observer import RoleObserver
from ..roles.presets import PRESETS, heads_of, preset_mask
from ..selection import Indices, Selection
from ..tiny_wan.files import GUIDANCE, STEPS
from ..transfer import LiveTransfer, TransferConfig
from .model import DemoModel
from .outlines import outlines
from .pairs import PAIRS, Pair, apart, edits
from .probe import AttributeProbe, Reading
from .sweep import decode

#: The clips that roles are taken from: other seeds than those that presets are tried on.
ROLE_SEEDS = tuple(range(104, 112))
#: The pairs that change the object, and thereby its outlines.
TRIED = ("truck", "dog")
PLAIN, ALL, CAMERA, RANDOM = "plain target", "all heads", "camera only", "random heads"
VARIANTS = (PLAIN, ALL, *PRESETS, RANDOM)
#: About how many steps of a clip are looked at.
_LOOKED_AT = 10


def measure(
    model: DemoModel,
    prompt: str = str(PAIRS["truck"].source),
    seeds: Sequence[int] = ROLE_SEEDS,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    on_step: Callable[[], None] | None = None,
) -> Roles:
    """The roles of the model's heads, of one batch of clips of a prompt; nothing is decoded."""
    looked_at = Indices(f"0-{steps - 1}/{max(1, steps // _LOOKED_AT)}")
    observer = RoleObserver(Selection(steps=looked_at, branches="cond"))
    with attach(model.pipe, observer):
        model.sample([prompt] * len(seeds), seeds, steps=steps, guidance=guidance, on_step=on_step)
    return head_roles(observer.result)


def masks(roles: Roles, seed: int) -> dict[str, HeadMask]:
    """The mask of each of VARIANTS; the random heads are other ones than the camera's, as many, for each seed anew."""
    model = roles.table.run.model
    camera = heads_of(CAMERA, roles)
    others = [head for head in roles.roles if head not in camera]
    drawn = random.Random(seed).sample(others, min(len(camera), len(others)))
    return {
        PLAIN: HeadMask("none"),
        ALL: HeadMask("all"),
        **{name: preset_mask(name, roles) for name in PRESETS},
        RANDOM: HeadMask.of(dict.fromkeys(drawn, 1.0), model.layers, model.heads),
    }


@dataclass(frozen=True)
class Trial:
    """One clip against its source: distances of `pairs.DISTANCES` in px, the sum of its outlines and their pixels
    (`outlines`), the colour that the probe reads, and whether it sees the target's object, 0 or 1."""

    pair: str
    seed: int
    variant: str
    mask: str
    distances: dict[str, float]
    edges: float
    pixels: int
    colour: str
    seen: float


def trials(
    model: DemoModel,
    probe: AttributeProbe,
    roles: Roles,
    seed: int,
    pairs: Sequence[str] = TRIED,
    variants: Sequence[str] = VARIANTS,
    window: str = "all",
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    on_step: Callable[[], None] | None = None,
) -> tuple[list[Trial], Tensor]:
    """All variants of some pairs' targets, from the noise of one seed, in one batch.

    window: the steps in which maps are transferred. The pairs have one source.

    Returns:
        The trials, pair by pair, and the clips (1 + trials, 3, frames, height, width): the source, then theirs.
    """
    chosen = [PAIRS[name] for name in pairs]
    of_variant = masks(roles, seed)
    jobs = [(pair, name, of_variant[name]) for pair in chosen for name in variants]
    prompts = [str(chosen[0].source), *(str(pair.target) for pair, _, _ in jobs)]
    transfer = LiveTransfer(TransferConfig(steps=Indices(window)), masks=[mask for _, _, mask in jobs])
    with attach(model.pipe, transfer):
        latents = model.sample(prompts, [seed] * len(prompts), steps=steps, guidance=guidance, on_step=on_step)
    clips = decode(model, latents)
    with torch.no_grad():
        seen = [probe(clip.to(next(probe.parameters()).device)) for clip in clips.split(1)]
    found = [
        _trial(pair, seed, name, mask, seen[0], seen[n], clips[n : n + 1])
        for n, (pair, name, mask) in enumerate(jobs, start=1)
    ]
    return found, clips


def _trial(pair: Pair, seed: int, name: str, mask: HeadMask, source: Reading, seen: Reading, clip: Tensor) -> Trial:
    edges, pixels = outlines(clip, seen)
    distances = {name: round(px, 4) for name, px in apart(source, seen).items()}
    colour, right = seen.names("colour")[0], edits(pair.target, seen)["object"]
    return Trial(pair.name, seed, name, str(mask), distances, round(float(edges[0]), 3), int(pixels[0]), colour, right)


@dataclass(frozen=True)
class Row:
    """One variant of a pair's target, over seeds.

    pan, error: the camera's distance to the source in px, mean over seeds and its standard error. pan_part: that
    distance as a part of the plain target's. drawn: how strong outlines at the object are, as a part of the plain
    target's; alike: the same of those clips only whose object has the plain target's colour, since a brown dog has
    weaker outlines than a black one, however well it is drawn; nan without such clips. Each with its standard error,
    paired over seeds. x, horizon: px. seen: the share of clips in which the probe sees the object.
    """

    pair: str
    variant: str
    seeds: int
    pan: float
    error: float
    pan_part: tuple[float, float]
    drawn: tuple[float, float]
    alike: tuple[float, float]
    x: float
    horizon: float
    seen: float


def rows(found: Sequence[Trial]) -> list[Row]:
    """The table: of each pair and variant that is there, in the order of VARIANTS."""
    return list(_rows(found))


def _rows(found: Sequence[Trial]) -> Iterator[Row]:
    for pair in dict.fromkeys(trial.pair for trial in found):
        plain = {trial.seed: trial for trial in found if (trial.pair, trial.variant) == (pair, PLAIN)}
        for variant in VARIANTS:
            of = [trial for trial in found if (trial.pair, trial.variant) == (pair, variant) and trial.seed in plain]
            if not of:
                continue
            pans = [trial.distances["pan"] for trial in of]
            beside = [plain[trial.seed] for trial in of]
            yield Row(
                pair,
                variant,
                len(of),
                fmean(pans),
                _error(pans),
                _ratio(pans, [trial.distances["pan"] for trial in beside]),
                _ratio(*_strengths(of, beside)),
                _ratio(*_strengths(*_of_one_colour(of, beside))),
                fmean(trial.distances["x"] for trial in of),
                fmean(trial.distances["horizon"] for trial in of),
                fmean(trial.seen for trial in of),
            )


def differences(
    found: Sequence[Trial], one: str = CAMERA, other: str = RANDOM
) -> dict[str, dict[str, tuple[float, float]]]:
    """By pair, how much further from the source's pan `other` is than `one` in px, and how much stronger its outlines
    are as a part of the plain target's: means over the same seeds and their standard errors."""
    result = {}
    for pair in dict.fromkeys(trial.pair for trial in found):
        by = {(trial.variant, trial.seed): trial for trial in found if trial.pair == pair}
        seeds = [seed for variant, seed in by if variant == one and (other, seed) in by and (PLAIN, seed) in by]
        if not seeds:
            continue
        pan = [by[other, seed].distances["pan"] - by[one, seed].distances["pan"] for seed in seeds]
        strengths = {v: [_strength(by[v, seed]) for seed in seeds] for v in (one, other, PLAIN)}
        level = fmean(strengths[PLAIN])
        drawn = [(b - a) / level for a, b in zip(strengths[one], strengths[other], strict=True)]
        result[pair] = {"pan": (fmean(pan), _error(pan)), "drawn": (fmean(drawn), _error(drawn))}
    return result


def _strength(trial: Trial) -> float:
    return trial.edges / max(1, trial.pixels)


def _of_one_colour(of: Sequence[Trial], beside: Sequence[Trial]) -> tuple[list[Trial], list[Trial]]:
    same = [(one, other) for one, other in zip(of, beside, strict=True) if one.colour == other.colour]
    return [one for one, _ in same], [other for _, other in same]


def _strengths(of: Sequence[Trial], beside: Sequence[Trial]) -> tuple[list[float], list[float]]:
    """Edges per pixel of all clips together, as `paper.drawn` has it: each clip's part of the mean."""
    scales = [max(1, sum(trial.pixels for trial in some)) / max(1, len(some)) for some in (of, beside)]
    return [trial.edges / scales[0] for trial in of], [trial.edges / scales[1] for trial in beside]


def _error(values: Sequence[float]) -> float:
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf


def _ratio(above: Sequence[float], below: Sequence[float]) -> tuple[float, float]:
    """mean(above) / mean(below) and its standard error (delta method), the values paired."""
    level = fmean(below) if below else 0.0
    if level == 0:
        return math.nan, math.inf
    ratio = fmean(above) / level
    return ratio, _error([a - ratio * b for a, b in zip(above, below, strict=True)]) / level

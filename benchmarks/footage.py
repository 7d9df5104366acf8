"""Edits of rendered clips against the true edit, which the demo world can render: which method comes nearest.

    python benchmarks/footage.py --choose [--device cuda --workers 8]     the best settings of each method
    python benchmarks/footage.py [--device cuda --workers 8]              all methods on held-out scenes

Settings are chosen on other scenes than those that are reported. Latents are decoded and compared with the clip that
the world renders for the target's caption and the same seed; the VAE alone gives about 36 dB.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))

from training.painter import render
from training.world import Scenes
from vdit_core import metrics
from vdit_core.demo.model import DemoModel
from vdit_core.demo.pairs import apart
from vdit_core.demo.probe import AttributeProbe
from vdit_core.footage.config import EditConfig
from vdit_core.hosts.diffusers import attach
from vdit_core.hosts.diffusers.footage import begin_at, edit_footage, velocity
from vdit_core.reporting.tables import markdown
from vdit_core.selection import LayerMask
from vdit_core.tiny_wan.captions import Caption
from vdit_core.tiny_wan.files import GUIDANCE, PROBE, WEIGHTS
from vdit_core.transfer import LiveTransfer, TransferConfig

_CAR, _WINTER = Caption("car"), Caption("car", season="winter")
EDITS = {
    "red": (_CAR, Caption("car", colour="red")),
    "winter": (_CAR, _WINTER),
    "summer": (_WINTER, _CAR),
    "truck": (_CAR, Caption("truck")),
    "dog": (_CAR, Caption("dog", place="grass")),
}
#: Settings are chosen by the edits whose truth differs from the footage in looks alone.
CHOSEN_BY = ("red", "winter", "summer")
#: First seed of the scenes that are reported, and of those that settings are chosen on; the model was trained on none.
REPORTED, CHOOSING = 700_000, 600_000
#: A pixel of the truth that is so far from the footage in any channel is edited, and all within so many pixels.
EDITED, MARGIN = 0.02, 4


@dataclass(frozen=True)
class Method:
    """kind: plain, noised, inversion, video-to-video, or edit. maps: the layers whose maps come from the footage, as a
    layer mask. guidance: of the target; source_guidance: of the source, where that is another. change: the share of the
    schedule that is sampled, which video-to-video calls denoise."""

    kind: str
    maps: str = "none"
    guidance: float = GUIDANCE
    source_guidance: float = 1.5
    change: float = 1.0
    draws: int = 1
    finish: float = 0.0
    hold: float = 0.0

    def __str__(self) -> str:
        scales = f"{self.source_guidance:g} to {self.guidance:g}" if self.kind == "edit" else f"{self.guidance:g}"
        draws = f", {self.draws} draws" * (self.draws > 1) + ", finish" * (self.finish > 0)
        draws += f", hold {self.hold:g}" if self.hold else ""
        return f"{self.kind}, guidance {scales}, change {self.change:g}{draws}, maps {self.maps}"


FIGURES = {"psnr": "PSNR, dB", "ssim": "SSIM", "flip": "FLIP", "outside": "outside, dB", "x": "x, px", "pan": "pan, px"}
_EDIT = EditConfig()
DEFAULT = Method("edit", "all", _EDIT.target_guidance, _EDIT.source_guidance, _EDIT.change, _EDIT.draws, _EDIT.finish)
#: The default, what --choose found best of each kind, and the default with one thing changed.
REPORT = [
    Method("plain"),
    Method("noised", "all"),
    Method("inversion", "none", 2.0, change=0.8),
    Method("inversion", "all", 2.0, change=0.8),
    Method("video-to-video", "none", 5.0, change=0.4),
    Method("video-to-video", "all", 5.0, change=0.4),
    Method("edit", "none", 2.0, 1.5, 0.6),
    replace(DEFAULT, maps="none", finish=0.0),
    replace(DEFAULT, maps="none"),
    replace(DEFAULT, finish=0.0),
    DEFAULT,
    replace(DEFAULT, draws=2),
    replace(DEFAULT, guidance=3.0, change=0.8, finish=0.0),
]


def steps_of(levels: list[float]) -> Iterator[tuple[float, float]]:
    return pairwise(levels)


@torch.no_grad()
def sample(
    model: DemoModel, method: Method, footage: Tensor, source: str, target: str, steps: int, seed: int
) -> Tensor:
    """The edited latents of one clip."""
    pipe, text = model.pipe, model.text
    prompts = [text.encode([prompt]).to(model.device) for prompt in (source, target)]
    nothing = text.encode([""]).to(model.device)
    where = TransferConfig(LayerMask(method.maps))
    if method.kind == "edit":
        config = EditConfig(
            method.change, method.source_guidance, method.guidance, method.draws, method.finish, method.hold
        )
        edits, _ = edit_footage(pipe, footage, prompts[0], prompts[1:], nothing, config, where, steps, seed)
        return edits
    levels = begin_at(pipe, steps, method.change, footage.device)
    noise = model.noise([seed]).to(footage)
    driven = None
    if method.kind == "inversion":
        moves, _ = velocity(pipe, prompts[0], nothing, [1.0])
        x = footage
        for sigma, following in steps_of(levels[::-1]):
            x = x + (following - sigma) * moves(x, sigma or levels[-2])
    elif method.kind == "plain":
        x = noise
    else:
        x, driven = levels[0] * noise + (1 - levels[0]) * footage, footage
    if method.kind == "noised":
        x = noise
    moves, branches = velocity(pipe, torch.cat(prompts), nothing, [method.guidance] * 2)
    rows = x.expand(2, *x.shape[1:])
    with attach(pipe, LiveTransfer(where, footage=driven), branches=branches):
        for sigma, following in steps_of(levels):
            rows = rows + (following - sigma) * moves(rows, sigma)
    return rows[1:]


class Bench:
    """A model, a probe, and the figures of one edit."""

    def __init__(self, device: str, steps: int) -> None:
        self.model, self.steps = DemoModel.load(device), steps
        self.probe = AttributeProbe.load(WEIGHTS / PROBE).to(device)

    @lru_cache(maxsize=256)  # noqa: B019 - it lives as long as its process
    def clips(self, edit: str, scene: int) -> tuple[Tensor, Tensor]:
        """The footage and the true edit."""
        device = self.model.device.type
        footage, truth = (render(Scenes.sample([scene], [caption], device)).cpu() for caption in EDITS[edit])
        return footage, truth

    def edited(self, method: Method, edit: str, scene: int) -> Tensor:
        source, target = EDITS[edit]
        latents = self.model.encode(self.clips(edit, scene)[0])
        found = sample(self.model, method, latents, str(source), str(target), self.steps, scene)
        return self.model.decode(found).cpu()

    def figures(self, method: Method, edit: str, scene: int) -> dict[str, float]:
        footage, truth = self.clips(edit, scene)
        clip = self.edited(method, edit, scene)
        found = asdict(metrics.quality(truth, clip))
        outside = ~region(footage, truth).expand_as(clip)
        error = ((clip - footage) ** 2)[outside]
        found["outside"] = float(-10 * error.mean().log10()) if error.numel() else float("nan")
        with torch.no_grad():
            readings = [self.probe(one.to(self.model.device)) for one in (truth, clip)]
        return found | apart(*readings)


def region(footage: Tensor, truth: Tensor) -> Tensor:
    """Where the true edit differs from the footage, and all around: bool (1, 1, frames, height, width)."""
    differs = ((truth - footage).abs().amax(1, keepdim=True) > EDITED).float()
    return F.max_pool3d(differs, (1, 2 * MARGIN + 1, 2 * MARGIN + 1), 1, (0, MARGIN, MARGIN)) > 0


def scenes(first: int, count: int, edit: str) -> list[int]:
    """Seeds of which the edit changes something: a car that happens to be red is not made red."""
    found: list[int] = []
    seed = first
    while len(found) < count:
        drawn = [Scenes.sample([seed], [caption]) for caption in EDITS[edit]]
        if edit != "red" or int(drawn[0].colour) != int(drawn[1].colour):
            found.append(seed)
        seed += 1
    return found


_bench: Bench | None = None


def _start(device: str, steps: int) -> None:
    global _bench
    torch.set_num_threads(1)
    _bench = Bench(device, steps)


def _job(job: tuple[Method, str, int]) -> dict[str, float]:
    assert _bench is not None
    return _bench.figures(*job)


def run(jobs: Sequence[tuple[Method, str, int]], device: str, steps: int, workers: int) -> list[dict[str, float]]:
    if workers == 1:
        _start(device, steps)
        return [_job(job) for job in tqdm(jobs)]
    context = torch.multiprocessing.get_context("spawn")
    with context.Pool(workers, _start, (device, steps)) as pool:
        return list(tqdm(pool.imap(_job, jobs, chunksize=4), total=len(jobs)))


def candidates() -> list[Method]:
    """What settings are chosen among."""
    found = []
    for maps in ("none", "all"):
        found += [Method("inversion", maps, g, change=c) for g in (1.0, 2.0, 3.0) for c in (1.0, 0.8)]
        found += [Method("video-to-video", maps, g, change=c) for g in (1.5, 3.0, 5.0) for c in (0.4, 0.5, 0.6, 0.7)]
        scales = ((1.0, 1.5), (1.0, 2.0), (1.5, 2.0), (1.5, 3.0), (2.0, 3.0), (1.5, 5.0))
        found += [Method("edit", maps, g, s, c) for s, g in scales for c in (0.6, 0.7, 0.8, 0.9)]
    found += [Method("edit", maps, 3.0, 1.5, 0.8) for maps in ("early", "middle", "late", "0-4", "4-8", "all:0.5")]
    found += [Method("edit", maps, 3.0, 1.5, 0.8, 4) for maps in ("none", "all")]
    return found


def best(methods: Sequence[Method], rows: dict[str, dict[str, list[dict[str, float]]]]) -> list[Method]:
    """Of each kind the method of the highest mean PSNR, with the footage's maps and without; and the two simplest."""

    def score(method: Method) -> float:
        by_edit = rows[str(method)].values()
        return sum(one["psnr"] for found in by_edit for one in found) / sum(map(len, by_edit))

    groups: dict[tuple[str, bool], list[Method]] = {}
    for method in methods:
        groups.setdefault((method.kind, method.maps != "none"), []).append(method)
    simplest = [Method("plain"), Method("noised", "all")]
    return simplest + [max(group, key=score) for group in groups.values()]


def means(rows: dict[str, dict[str, list[dict[str, float]]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Over the scenes, by method and edit; scenes without a figure do not count."""

    def mean(found: list[dict[str, float]], name: str) -> float:
        values = [one[name] for one in found if math.isfinite(one[name])]
        return round(sum(values) / len(values), 3)

    return {
        method: {edit: {name: mean(found, name) for name in FIGURES} for edit, found in by_edit.items()}
        for method, by_edit in rows.items()
    }


def tabulated(rows: dict[str, dict[str, list[dict[str, float]]]]) -> str:
    """The means as a table."""
    lines = [
        [method, edit, *[f"{of[name]:.2f}" for name in FIGURES]]
        for method, by_edit in means(rows).items()
        for edit, of in by_edit.items()
    ]
    return markdown(["method", "edit", *FIGURES.values()], lines, aligned=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choose", action="store_true", help="try all candidates, on other scenes")
    parser.add_argument("--scenes", type=int, default=16)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--methods", type=Path, help="what --choose wrote: the methods it chose instead of the default")
    parser.add_argument("--report", type=Path, help="a file that the means are added to, as docs/footage_report.json")
    parser.add_argument("--out", type=Path, default=Path("out/footage.json"))
    options = parser.parse_args()
    methods = candidates() if options.choose else REPORT
    if options.methods:
        methods = [Method(**one) for one in json.loads(options.methods.read_text())["chosen"]]
    first = CHOOSING if options.choose else REPORTED
    edits = CHOSEN_BY if options.choose else tuple(EDITS)
    jobs = [(m, edit, scene) for m in methods for edit in edits for scene in scenes(first, options.scenes, edit)]
    found = run(jobs, options.device, options.steps, options.workers)
    rows: dict[str, Any] = {}
    for (method, edit, _), figures in zip(jobs, found, strict=True):
        rows.setdefault(str(method), {}).setdefault(edit, []).append(figures)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    chosen = best(methods, rows) if options.choose else methods
    told = {"methods": [asdict(m) for m in methods], "chosen": [asdict(m) for m in chosen], "rows": rows}
    options.out.write_text(json.dumps(told, indent=1))
    if options.report:
        report = json.loads(options.report.read_text()) if options.report.exists() else {"means": {}}
        report |= {"scenes": options.scenes, "steps": options.steps}
        report["means"] |= means(rows)
        options.report.write_text(json.dumps(report, indent=1) + "\n")
    print(tabulated(rows))


if __name__ == "__main__":
    main()

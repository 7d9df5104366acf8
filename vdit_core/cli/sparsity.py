"""`vdit sparsity`: what each layer and head of the demo model tolerates, and what a density costs."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from . import options as shared
from . import sparsity_import


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`vdit sparsity` alone is `vdit sparsity profile`; options may stand before and behind the word.

    So only the outer parser has defaults: the inner one's would take the place of what was given before the word.
    """
    parser = commands.add_parser(
        "sparsity", help="how sparse which layers can be, on the demo model", argument_default=argparse.SUPPRESS
    )
    _add_options(parser)
    parser.set_defaults(
        command=run, what="profile", method="exact top-k", keep=30, keeps="70,50,30,20,10", local_only=False,
        profile=None, prompt="A car is driving on the highway", seed=1, out=Path("out/sparsity"), device="cpu",
        steps=None, guidance=None,
    )  # fmt: skip
    kinds = parser.add_subparsers(metavar="WHAT")
    for what, meaning in (
        ("profile", "measure what each head tolerates (default)"),
        ("report", "videos and quality over density"),
    ):
        one = kinds.add_parser(what, help=meaning, argument_default=argparse.SUPPRESS)
        _add_options(one)
        one.set_defaults(what=what)
    sparsity_import.add(kinds)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--method", help="a pattern of blocks, or 'exact top-k', the reference")
    parser.add_argument("--keep", type=float, metavar="PERCENT", help="of all maps, on average")
    parser.add_argument("--keeps", metavar="PERCENTS", help="of the report's videos")
    parser.add_argument("--local-only", action="store_true", help="measure from one dense run, without further videos")
    parser.add_argument(
        "--profile", metavar="FILE",
        help="the report's, or the name of a published one; default: what `vdit sparsity` wrote to --out",
    )  # fmt: skip
    parser.add_argument("--prompt")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--out", type=Path)
    shared.add_sampling(parser)


def run(options: argparse.Namespace) -> None:
    from ..demo.model import DemoModel
    from ..tiny_wan.files import GUIDANCE, STEPS

    keeps = [_share(text) for text in options.keeps.split(",")]
    keep = _share(options.keep)
    model = DemoModel.load(options.device)
    sampling: dict[str, Any] = {"steps": STEPS, "guidance": GUIDANCE} | shared.sampling(options)
    sampling |= {"prompt": options.prompt, "seed": options.seed}
    options.out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    written = (
        _report(options, model, sampling, keeps)
        if options.what == "report"
        else _profile(options, model, sampling, keep)
    )
    print(f"\n{time.monotonic() - start:.1f} s. See {', '.join(str(options.out / name) for name in written)}.")


def _share(percent: str | float) -> float:
    if not 0 < (value := float(percent)) <= 100:
        raise ValueError(f"{percent} is not a percentage above 0, up to 100.")
    return value / 100


def _profile(options: argparse.Namespace, model: Any, sampling: dict[str, Any], keep: float) -> list[str]:
    import torch
    from tqdm import tqdm

    from ..atomic import whole_file
    from ..demo import sparsity as demo
    from ..sparse import presets
    from ..sparse.calibration import profile
    from ..sparse.describe import describe
    from ..sparse.pictures import profile_picture
    from ..tiny_wan.files import TRANSFORMER

    layers, steps = demo.signature(model).layers, sampling["steps"]
    videos = 1 if options.local_only else 1 + layers + 2 + 5
    with torch.no_grad(), tqdm(total=videos * steps, unit="video step", desc="sampling") as bar:
        local = demo.local_errors(model, options.method, **sampling, on_step=bar.update)
        found = None
        if not options.local_only:
            found = demo.ablate(
                model, options.method, keep, demo.sampler(model, options.method, **sampling, on_step=bar.update)
            )
    measured = {"model": TRANSFORMER, "grid": str(model.grid)} | sampling
    made = profile(local, keep, None if found is None else found.weights(local), measured)
    made.save(options.out / "profile.json")
    with whole_file(options.out / "profile.png") as part:
        profile_picture(made, local, found).save(part)
    print(describe(made, found, presets.matching(made.model)))
    return ["profile.json", "profile.png"]


def _report(options: argparse.Namespace, model: Any, sampling: dict[str, Any], keeps: list[float]) -> list[str]:
    import torch
    from tqdm import tqdm

    from ..atomic import whole_file
    from ..demo import sparsity as demo
    from ..demo.sweep import decode
    from ..reporting.labelled import side_by_side
    from ..reporting.video import write_mp4
    from ..sparse import presets
    from ..sparse.pictures import pareto
    from ..sparse.profile_file import load_profile
    from ..sparse.quality import compare

    published = options.profile in presets.NAMES
    file = Path(options.profile or options.out / "profile.json")
    chosen = presets.load(options.profile) if published else load_profile(file)
    chosen.check(demo.signature(model), options.method)
    with torch.no_grad(), tqdm(total=1 + 2 * len(keeps), unit="video", desc="sampling") as bar:
        quality = compare(
            demo.sample_one(model, **sampling),
            lambda latents: decode(model, latents),
            demo.whole(options.method),
            keeps,
            chosen,
            bar.update,
        )
    middle = min(keeps, key=lambda keep: abs(keep - 0.3))
    shown = {name: clip for name, clip in quality.clips.items() if name == "dense" or f"keep {middle:.0%}," in name}
    write_mp4(side_by_side(shown), options.out / "side_by_side.mp4")
    with whole_file(options.out / "pareto.png") as part:
        pareto(quality).save(part)
    with whole_file(options.out / "report.json") as part:
        part.write_text(quality.as_json(), encoding="utf-8")
    print(quality.as_text())
    return ["side_by_side.mp4", "pareto.png", "report.json"]

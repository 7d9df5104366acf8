"""`vdit demo`: the paper's headline on the demo model."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from . import options as shared


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("demo", help="the paper's headline on the demo model: videos, pictures and a table")
    parser.add_argument("--pairs", default="all", help="red, winter, truck, dog (comma-separated), or all")
    parser.add_argument("--seeds", type=shared.positive, default=1, metavar="N", help="how many seeds a pair")
    parser.add_argument("--first-seed", type=shared.seed, default=1, metavar="S", help="the first of them")
    parser.add_argument(
        "--layers", default="all", metavar="MASK", help="layers to transfer, e.g. 'all', '3-7', 'all, 3:0.5'"
    )
    parser.add_argument("--window", default="all", metavar="STEPS", help="steps to transfer in, e.g. 'all', '0%%-50%%'")
    parser.add_argument("--out", type=Path, default=Path("out"))
    shared.add_sampling(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from ..demo import pairs, report
    from ..demo.model import DemoModel
    from ..demo.probe import AttributeProbe
    from ..selection import Indices, LayerMask
    from ..tiny_wan.files import PROBE, STEPS, WEIGHTS
    from ..transfer import TransferConfig

    chosen = pairs.choose(options.pairs)
    where = TransferConfig(LayerMask(options.layers), steps=Indices(options.window))
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    if seeds[-1] + pairs.OTHER >= shared.SEEDS:
        raise ValueError(f"Seeds up to {seeds[-1]} are too large: the other seeds are {pairs.OTHER} further on.")
    shared.make_folder(options.out)
    start = time.monotonic()
    model = DemoModel.load(options.device)
    probe = AttributeProbe.load(WEIGHTS / PROBE).to(options.device)
    total = pairs.generations(chosen, len(seeds)) * (options.steps or STEPS)
    with tqdm(total=total, unit="step", desc="generating") as bar:
        results = pairs.run(model, probe, chosen, seeds, where, **shared.sampling(options), on_step=bar.update)
    found = report.write(results, time.monotonic() - start, options.device, options.out)
    print(report.as_text(found))
    print(f"\nReplaced {found['replaced_calls']} of {found['expected_calls']} calls, {found['seconds']} s.")
    print(f"Open {options.out / 'index.html'} to see the videos.")

"""`vdit paper`: the paper's page "Structure", rebuilt on the demo model, beside what the paper reports."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from . import options as shared


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("paper", help="the paper's findings on the demo model: one page, with verdicts")
    parser.add_argument("--seeds", type=shared.positive, default=1, metavar="N", help="how many seeds")
    parser.add_argument("--first-seed", type=int, default=1, metavar="S", help="the first of them")
    parser.add_argument("--out", type=Path, default=Path("out/paper"))
    shared.add_sampling(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from ..demo import paper, paper_page
    from ..demo.model import DemoModel
    from ..demo.probe import AttributeProbe
    from ..tiny_wan.files import PROBE, WEIGHTS

    seeds = range(options.first_seed, options.first_seed + options.seeds)
    start = time.monotonic()
    model = DemoModel.load(options.device)
    probe = AttributeProbe.load(WEIGHTS / PROBE).to(options.device)
    total = paper.work(model, len(seeds), options.steps)
    with tqdm(total=total, unit="video step", desc="generating") as bar:
        sampling = paper.Sampling(**shared.sampling(options), on_step=bar.update)
        findings = paper.run(model, probe, seeds, sampling)
    report = paper_page.write(findings, time.monotonic() - start, options.out)
    for name, verdict in report["verdicts"].items():
        print(f"{name}: {verdict['state']}. {verdict['text']}")
    print(f"\n{report['seconds']} s. Open {options.out / 'index.html'}.")

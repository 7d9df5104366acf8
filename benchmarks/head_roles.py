"""What transfers of heads by their role keep of a source, on the demo model: the table of docs/head_roles.md.

    .venv/bin/python benchmarks/head_roles.py [--seeds 16] [--first-seed 0] [--steps 30] [--window all]
        [--variants "camera only, random heads"] [--out out/head_roles]

Takes the roles of the demo model's heads from clips of other seeds, then samples for each seed the source and both
pairs' targets under every variant's mask. Each seed's trials are added to trials.json in the folder, so that a run that
was broken off goes on where it was; seeds and variants that are there already are not sampled again. At the end it
prints the table and draws roles.png, and for the last seed that was sampled a contact sheet per pair.
A seed with all variants is 15 clips.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch

from vdit_core.demo import roles as demo
from vdit_core.demo.model import DemoModel
from vdit_core.demo.probe import AttributeProbe
from vdit_core.demo.roles_report import as_text, beside, sheet, tried_picture
from vdit_core.reporting.files import write_json, write_picture, write_text
from vdit_core.roles.describe import as_json
from vdit_core.roles.describe import as_text as roles_text
from vdit_core.roles.pictures import roles_picture
from vdit_core.roles.presets import heads_of
from vdit_core.tiny_wan.files import PROBE, STEPS, WEIGHTS


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--window", default="all", help="the steps in which maps are transferred")
    parser.add_argument("--variants", default=", ".join(demo.VARIANTS))
    parser.add_argument("--out", type=Path, default=Path("out/head_roles"))
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    options.out.mkdir(parents=True, exist_ok=True)
    model, probe = DemoModel.load(), AttributeProbe.load(WEIGHTS / PROBE)
    roles = demo.measure(model, steps=options.steps)
    print(roles_text(roles))
    write_json(options.out / "roles.json", as_json(roles))
    picture = roles_picture(roles, "Head roles of the demo model · framed: camera only", heads_of(demo.CAMERA, roles))

    file = options.out / "trials.json"
    found = [demo.Trial(**trial) for trial in json.loads(file.read_text())] if file.exists() else []
    wanted = [name.strip() for name in options.variants.split(",")]
    if unknown := [name for name in wanted if name not in demo.VARIANTS]:
        parser.error(f"there is no variant {unknown[0]!r}; the variants are {', '.join(demo.VARIANTS)}")
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        there = {trial.variant for trial in found if trial.seed == seed}
        variants = [name for name in wanted if name not in there]
        if not variants:
            continue
        some, clips = demo.trials(
            model, probe, roles, seed, variants=variants, window=options.window, steps=options.steps
        )
        found += some
        write_text(file, "[\n" + ",\n".join(json.dumps(asdict(trial)) for trial in found) + "\n]\n")
        for pair in demo.TRIED:
            of = [n for n, trial in enumerate(some) if trial.pair == pair]
            write_picture(options.out / f"{pair}.png", sheet([some[n] for n in of], clips[[0, *(n + 1 for n in of)]]))
        print(f"seed {seed}: {len(some)} clips", flush=True)
    print(as_text(found))
    write_picture(options.out / "roles.png", beside(picture, tried_picture(found)))


if __name__ == "__main__":
    main()

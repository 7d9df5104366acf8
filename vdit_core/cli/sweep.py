"""`vdit sweep`: which layers' attention maps carry the source's structure, on the demo model."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from . import options as shared


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("sweep", help="which layers carry the source's structure, on the demo model")
    parser.add_argument("--source", default="A car is driving on the highway", metavar="PROMPT")
    parser.add_argument("--target", default="A car is driving on the highway in the winter", metavar="PROMPT")
    parser.add_argument("--mode", default="each", help="each, first, last, 'all but one': the layers of each row")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--window", default="all", metavar="STEPS", help="steps to transfer in, e.g. 'all', '0%%-50%%'")
    parser.add_argument(
        "--rows-per-batch",
        type=int,
        metavar="N",
        help="videos in a batch, the source among them (8; every batch samples the source again)",
    )
    parser.add_argument(
        "--ray",
        nargs="?",
        const="auto",
        metavar="ADDRESS",
        help="spread over a Ray cluster that `ray start` started, here or at host:port (where that made an "
        "~/.ray/auth_token, other machines join with RAY_AUTH_MODE=token and a copy of it)",
    )
    parser.add_argument("--out", type=Path, default=Path("out/sweep"), help="an interrupted sweep goes on from here")
    shared.add_sampling(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    import torch
    from tqdm import tqdm

    from ..atomic import whole_file
    from ..demo import sweep as demo
    from ..demo.model import DemoModel
    from ..demo.probe import AttributeProbe
    from ..selection import Indices
    from ..sweep import pictures
    from ..sweep.checkpoint import SweepFolder
    from ..sweep.plan import AT_ONCE, batches
    from ..sweep.ray_runner import run_on_ray
    from ..sweep.run import missing
    from ..sweep.run import run as run_here
    from ..sweep.scores import measure
    from ..tiny_wan.files import GUIDANCE, PROBE, STEPS, WEIGHTS
    from ..transfer import TransferConfig

    if options.ray and find_spec("ray") is None:
        raise ValueError("--ray needs the package ray: pip install 'vdit-attention[ray]'")
    start = time.monotonic()
    model = DemoModel.load(options.device)
    sampling: dict[str, Any] = (
        {"steps": STEPS, "guidance": GUIDANCE} | shared.sampling(options) | {"seed": options.seed}
    )
    where = TransferConfig(steps=Indices(options.window))
    sweep = demo.plan(model, options.source, options.target, options.mode, where, **sampling)
    folder = SweepFolder(options.out, sweep)

    def say(problem: str) -> None:
        print(f"vdit: {problem}", file=sys.stderr)

    done = folder.load(say)
    at_once = AT_ONCE if options.rows_per_batch is None else options.rows_per_batch
    todo = batches(missing(sweep, done), at_once)  # refuses what cannot be before anything starts
    if options.ray:  # workers tell of finished batches only, and their number decides how many there are
        with tqdm(unit="video", desc="sampling", disable=not todo) as bar:

            def started(workers: int, plan: Sequence[Sequence[int]]) -> None:
                say(f"{workers} workers, {len(plan)} batches")
                bar.reset(sum(map(len, plan)))

            latents = run_on_ray(
                sweep,
                partial(demo.worker, options.device, **sampling),
                folder,
                options.rows_per_batch,
                options.ray,
                gpus=1 if model.device.type == "cuda" else 0,
                done=done,
                on_start=started,
                on_batch=lambda batch: bar.update(len(batch)),
            )
    else:
        total = sum(len(batch) for batch in todo) * sampling["steps"]
        with tqdm(total=total, unit="video step", desc="sampling", disable=not todo) as bar:
            sample = demo.sampler(model, **sampling, on_step=bar.update)
            latents = run_here(sweep, sample, folder, at_once, done)
    clips = demo.decode(model, latents)
    probe = AttributeProbe.load(WEIGHTS / PROBE).to(model.device)
    with torch.no_grad():
        result = measure(sweep, clips, demo.readings(probe, options.target, clips))
    with whole_file(options.out / "sweep.json") as part:
        part.write_text(json.dumps(result.as_dict(), indent=1) + "\n", encoding="utf-8")
    for picture, name in ((pictures.bars(result), "bars.png"), (pictures.sheet(result, clips), "sheet.png")):
        with whole_file(options.out / name) as part:
            picture.save(part)
    print(result.as_text())
    print(f"\n{result.verdict()} {time.monotonic() - start:.1f} s.")
    print(f"See {options.out / 'bars.png'} and {options.out / 'sheet.png'}.")

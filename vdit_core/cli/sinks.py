"""`vdit sinks`: which keys take outsized mass, and whether that matters; of a recording, or of the demo model."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from . import options as shared


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("sinks", help="find attention sinks, and see whether they matter")
    parser.add_argument("store", nargs="?", type=Path, help="a recording; none: the demo model")
    parser.add_argument("--prompt", default="A car is driving on the highway", help="of the demo model's video")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plant", action="store_true", help="plant sinks in the demo model, to see them found")
    parser.add_argument("--ratio", type=float, help="a sink's mass, at least so many times uniform")
    parser.add_argument("--out", type=Path, default=Path("out/sinks"))
    shared.add_sampling(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    from ..sinks import page
    from ..sinks.describe import describe
    from ..sinks.detect import RATIO, detect

    start, ratio = time.monotonic(), RATIO if options.ratio is None else options.ratio
    if ratio <= 1:
        raise ValueError(f"--ratio {ratio:g}: a sink takes more than a uniform share, so write a number above 1.")
    if options.store is not None:
        if options.plant:
            raise ValueError("--plant is for the demo model; a recording has what it has.")
        record, title = _of_store(options), options.store.name
        findings = detect(record, ratio)
        written = page.write(record, findings, title, options.out)
        text = describe(findings)
    else:
        text, written = _of_demo(options, ratio)
    print(text)
    print(f"\n{time.monotonic() - start:.1f} s. See {options.out / written[0]}.")


def _of_store(options: argparse.Namespace) -> Any:
    from tqdm import tqdm

    from ..recording.store import AttentionStore
    from ..recording.store.query import choose
    from ..selection import Selection
    from ..sinks.observer import from_store

    store = AttentionStore.load(options.store)
    with tqdm(total=len(choose(store, Selection())), unit="map") as bar:
        return from_store(store, device=options.device, on_call=bar.update)


def _of_demo(options: argparse.Namespace, ratio: float) -> tuple[str, list[str]]:
    import torch
    from tqdm import tqdm

    from ..demo import sinks as demo
    from ..demo.model import DemoModel
    from ..reporting.tables import markdown
    from ..sinks import ablation, page
    from ..sinks.control import ACTIONS, Targets
    from ..sinks.describe import describe
    from ..sinks.detect import detect
    from ..sinks.plant import PlantedSinks
    from ..tiny_wan.files import GUIDANCE, STEPS

    model = DemoModel.load(options.device)
    sampling: dict[str, Any] = {"steps": STEPS, "guidance": GUIDANCE} | shared.sampling(options)
    planted = PlantedSinks(demo.PLANTED) if options.plant else None
    with torch.no_grad():
        with tqdm(total=sampling["steps"], unit="step", desc="measuring") as bar:
            record, clip = demo.measure(model, options.prompt, planted, options.seed, **sampling, on_step=bar.update)
        findings = detect(record, ratio)
        tried: list[ablation.Ablation] = []
        clips: dict[str, Any] = {}
        if findings.sinks:
            sample = demo.sampler(model, options.prompt, options.seed, **sampling)
            targets = Targets.of(findings, record.run.model)
            with tqdm(total=1 + 3 * len(ACTIONS), unit="video", desc="without them") as bar:
                tried, clips = ablation.run(sample, targets, ACTIONS, base=planted, on_video=bar.update)
    title = f"The demo model, “{options.prompt}”, seed {options.seed}" + (", sinks planted" if planted else "")
    shown = {name: one for name, one in clips.items() if not name.endswith("random 2")}
    written = page.write(record, findings, title, options.out, clip[0], tried, shown)
    text = describe(findings)
    return (f"{text}\n\n{markdown(ablation.HEADS, ablation.table(tried))}" if tried else text), written

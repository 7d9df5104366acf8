"""`vdit structure`: pictures and figures of attention maps, of a recording or of a clip of the demo model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from . import options as shared

if TYPE_CHECKING:
    from ..inspect.observe import Observed


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("structure", help="see attention maps: stripes, squares, and how local they are")
    parser.add_argument(
        "store", nargs="?", type=Path, help="a recording (.safetensors); none: a clip of the demo model"
    )
    parser.add_argument("--prompt", default="A car is driving on the highway", help="of the demo model's clip")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--layer", type=int, default=-1, help="which layer's map is shown (-1: the middle one)")
    parser.add_argument("--step", type=int, default=-1, help="of which step (-1: the middle one)")
    parser.add_argument("--head", type=int, default=-1, help="of which head (-1: their mean)")
    parser.add_argument("--branch", default="cond", help="cond or uncond")
    parser.add_argument("--layers", default="all", help="of which layers to take figures")
    parser.add_argument("--window", default="all", metavar="STEPS", help="of which steps, e.g. '0-29/5'")
    parser.add_argument("--queries", type=shared.positive, metavar="N", help="estimate from N random queries")
    parser.add_argument("--pooled", type=shared.positive, default=512, metavar="PX", help="edge of the pooled map")
    parser.add_argument("--linear", action="store_true", help="colours by weight, not by its logarithm")
    parser.add_argument("--out", type=Path, default=Path("out/structure"))
    shared.add_sampling(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    from ..inspect import structure
    from ..store import Key
    from ..video import write_mp4

    observed = _observe(options)
    view = structure.choose_view(observed, options.branch, options.layer, options.step, options.head)
    log = not options.linear
    options.out.mkdir(parents=True, exist_ok=True)
    structure.whole(observed, view, log).save(options.out / "map.png")
    structure.band(observed, view, log).save(options.out / "band.png")
    at = view.key
    views = [structure.View(Key(at.evaluation, at.branch, i), view.head) for i in observed.layers_at(at)]
    structure.per_frame(observed, views).save(options.out / "frames.png")
    structure.decay(observed).save(options.out / "locality.png")
    write_mp4(structure.animation(observed, view, log), options.out / "steps.mp4", fps=4)
    found = structure.summary(observed)
    (options.out / "structure.json").write_text(json.dumps(found, indent=1) + "\n")
    print(structure.as_text(found))
    print(f"Pictures: {options.out}/map.png, band.png, frames.png, locality.png; all steps: steps.mp4")


def _observe(options: argparse.Namespace) -> Observed:
    """Statistics of what the options name."""
    from tqdm import tqdm

    from ..inspect import structure
    from ..inspect.observe import Observer, choose, from_store
    from ..record import Selection
    from ..selection import Indices
    from ..store import AttentionStore

    selection = Selection(Indices(options.layers), steps=Indices(options.window), branches=options.branch)
    if options.store is not None:
        store = AttentionStore.load(options.store)
        wanted = structure.wanted(store.header.grid, options.pooled)
        with tqdm(total=len(choose(store, selection)), unit="map", desc="looking") as bar:
            return from_store(store, selection, wanted, options.queries, device=options.device, on_call=bar.update)
    from ..demo.model import DemoModel
    from ..demo.shipped import STEPS
    from ..hosts.diffusers import attach

    model = DemoModel.load(options.device)
    observer = Observer(selection, structure.wanted(model.grid, options.pooled), options.queries)
    with tqdm(total=options.steps or STEPS, unit="step", desc="generating") as bar, attach(model.pipe, observer):
        model.sample([options.prompt], [options.seed], **shared.sampling(options), on_step=bar.update)
    return observer.observed

"""`vdit structure`: pictures and figures of attention maps, of a recording or of a clip of the demo model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from . import options as shared

if TYPE_CHECKING:
    from ..recording.store import AttentionStore
    from ..selection import Selection


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("structure", help="see attention maps: stripes, squares, and how local they are")
    parser.add_argument(
        "store", nargs="?", type=Path, help="a recording (.safetensors); none: a clip of the demo model"
    )
    parser.add_argument("--prompt", default="A car is driving on the highway", help="of the demo model's clip")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--layer", type=int, default=-1, help="which layer's map is shown (-1: the middle one)")
    parser.add_argument("--step", type=int, default=-1, help="of which step (-1: the middle one)")
    parser.add_argument("--head", type=int, default=-1, help="of which head (-1: their mean)")
    parser.add_argument("--sample", type=int, default=0, help="of which video of the recording")
    parser.add_argument("--branch", default="cond", help="cond, uncond, another that was recorded, or all")
    parser.add_argument("--rows", default="", metavar="A-B", help="which tokens' rows are enlarged (a few frames)")
    parser.add_argument("--columns", default="", metavar="A-B", help="which tokens' columns are enlarged")
    parser.add_argument("--layers", default="all", help="of which layers to take figures")
    parser.add_argument("--window", default="all", metavar="STEPS", help="of which steps, e.g. '0-29/5'")
    parser.add_argument(
        "--queries", type=_queries, default="auto", metavar="N",
        help="estimate from N random queries; all: the strongest keys of all too; auto",
    )  # fmt: skip
    parser.add_argument("--pooled", type=shared.positive, default=512, metavar="N", help="edge of the pooled map")
    parser.add_argument("--linear", action="store_true", help="colours by weight, not by its logarithm")
    parser.add_argument("--out", type=Path, default=Path("out/structure"))
    shared.add_sampling(parser)
    parser.set_defaults(command=run)


def _queries(text: str) -> str | int:
    return text if text in ("auto", "all") else shared.positive(text)


def run(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from ..maps import structure, summary
    from ..maps.wanted import Wanted
    from ..recording.store.query import choose
    from ..reporting.video import write_mp4
    from ..selection import Indices, Selection

    selection = Selection(Indices(options.layers), steps=Indices(options.window), branches=options.branch)
    store = _store(options, selection)
    chosen = {"auto": structure.auto_queries(store.header, options.device), "all": None}
    names = ("branch", "layer", "step", "head", "sample", "rows", "columns")
    with tqdm(total=len(choose(store, selection)), unit="map", desc="looking") as bar:
        found = structure.look(
            store,
            selection,
            structure.Choice(**{name: getattr(options, name) for name in names}),
            chosen.get(options.queries, options.queries),
            options.pooled,
            options.device,
            on_call=bar.update,
            top_queries=None if options.queries == "all" else Wanted.top_queries,
        )
    log = not options.linear
    options.out.mkdir(parents=True, exist_ok=True)
    structure.whole(found.shown, log).save(options.out / "map.png")
    structure.band(found, log).save(options.out / "band.png")
    structure.per_frame(found.observed, found.shown.view).save(options.out / "frames.png")
    structure.decay(found.observed).save(options.out / "locality.png")
    structure.needed(found.observed).save(options.out / "needed.png")
    write_mp4(structure.animation(found.shown, log), options.out / "steps.mp4", fps=4)
    figures = summary.summary(found.observed)
    (options.out / "structure.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(summary.as_text(figures))
    print(f"Pictures: {options.out}/map.png, band.png, frames.png, locality.png, needed.png; all steps: steps.mp4")


def _store(options: argparse.Namespace, selection: Selection) -> AttentionStore:
    """The recording that the options name; of the demo model, in memory."""
    from ..recording.store import AttentionStore

    if options.store is not None:
        return AttentionStore.load(options.store)
    from tqdm import tqdm

    from ..demo.model import DemoModel
    from ..hosts.diffusers import attach
    from ..recording.recorder import Recorder
    from ..tiny_wan.files import STEPS

    model, recorder = DemoModel.load(options.device), Recorder(selection)
    with tqdm(total=options.steps or STEPS, unit="step", desc="generating") as bar, attach(model.pipe, recorder):
        model.sample([options.prompt], [options.seed], **shared.sampling(options), on_step=bar.update)
    return recorder.store

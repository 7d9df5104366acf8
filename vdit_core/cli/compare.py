"""`vdit compare`: how alike the maps of two recordings are, of one model or two, or of two prompts of the demo
model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from . import options as shared

if TYPE_CHECKING:
    from ..recording.store import AttentionStore
    from ..selection import Selection


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("compare", help="how alike attention maps are, with baselines")
    parser.add_argument("stores", nargs="*", type=Path, help="two recordings; none: two prompts of the demo model")
    parser.add_argument("--baseline", type=Path, help="a third recording: the first's prompt from another seed")
    parser.add_argument("--prompt", default="A car is driving on the highway", help="of the demo model's first clip")
    parser.add_argument("--other-prompt", default="A red car is driving on the highway", help="of its second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--layers", default="all")
    parser.add_argument("--window", default="0-29/5", metavar="STEPS", help="which steps, e.g. '0-29/5', all")
    parser.add_argument("--branch", default="cond", help="cond, uncond or all")
    parser.add_argument("--other-step", type=int, metavar="N", help="compare with this step of the second recording")
    parser.add_argument("--out", type=Path, default=Path("out/compare"))
    shared.add_sampling(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from ..maps import across, compare
    from ..maps.needed import Published
    from ..recording.store.query import choose
    from ..selection import Indices, Selection

    selection = Selection(Indices(options.layers), steps=Indices(options.window), branches=options.branch)
    first, second, baseline = _stores(options, selection)
    if across.are_of_two_models(first, second):
        _two_models([one for one in (first, second, baseline) if one is not None], selection, options)
        return
    others = [second] if baseline is None else [second, baseline]
    with tqdm(total=len(choose(first, selection)) * len(others), unit="map", desc="comparing") as bar:
        found = [
            compare.compare(first, other, selection, options.other_step, device=options.device, on_call=bar.update)
            for other in others
        ]
    options.out.mkdir(parents=True, exist_ok=True)
    published = Published.of(first.header)
    compare.picture(*found).save(options.out / "likeness.png")
    (options.out / "compare.json").write_text(compare.as_json(*found, published=published) + "\n")
    print(compare.verdict(*found, published=published))
    print(f"Picture: {options.out / 'likeness.png'}")


def _two_models(stores: list[AttentionStore], selection: Selection, options: argparse.Namespace) -> None:
    """The first of these recordings against the second, and against the third if there is one."""
    from tqdm import tqdm

    from ..maps import across
    from ..maps.across_picture import across_picture
    from ..maps.needed import Published
    from ..recording.store.query import choose

    with tqdm(total=sum(len(choose(store, selection)) for store in stores), unit="map", desc="looking") as bar:
        found = across.compare_stores(stores, selection, options.device, bar.update)
    options.out.mkdir(parents=True, exist_ok=True)
    across_picture(*found).save(options.out / "across.png")
    published = [Published.of(store.header) for store in stores[:2]]
    (options.out / "compare.json").write_text(across.as_json(*found, published=published) + "\n")
    print(across.verdict(*found, published=published))
    print(f"Picture: {options.out / 'across.png'}")


def _stores(
    options: argparse.Namespace, selection: Selection
) -> tuple[AttentionStore, AttentionStore, AttentionStore | None]:
    """The two recordings, and the baseline's."""
    from ..recording.store import AttentionStore

    if options.stores:
        if len(options.stores) != 2:
            raise ValueError(
                f"{len(options.stores)} recordings given: two are compared (a third as --baseline), or none (the demo "
                "model)."
            )
        first, second = map(AttentionStore.load, options.stores)
        return first, second, None if options.baseline is None else AttentionStore.load(options.baseline)
    if options.baseline is not None:
        raise ValueError(
            f"--baseline {options.baseline} is compared with two recordings, and none is given. Name them, or leave "
            "the baseline out: the demo model makes its own."
        )
    from ..demo.model import DemoModel
    from ..demo.pairs import OTHER
    from ..hosts.diffusers import attach
    from ..recording.recorder import Recorder

    model = DemoModel.load(options.device)

    def record(prompt: str, seed: int) -> AttentionStore:
        recorder = Recorder(selection, tier="GPU")
        with attach(model.pipe, recorder):
            model.sample([prompt], [seed], **shared.sampling(options))
        return recorder.store

    return (
        record(options.prompt, options.seed),
        record(options.other_prompt, options.seed),
        record(options.prompt, options.seed + OTHER),
    )

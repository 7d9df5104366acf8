"""`vdit roles`: what each head looks at, of recordings or of the demo model, and what a transfer of some keeps."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from . import options as shared

if TYPE_CHECKING:
    from ..demo.roles import Trial
    from ..roles.classify import Roles


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("roles", help="what each head looks at, and masks of heads by their role")
    parser.add_argument(
        "stores", nargs="*", type=Path, help="recordings (.safetensors) of one model; none: clips of the demo model"
    )
    parser.add_argument("--preset", default="camera only", help="which heads the picture frames")
    parser.add_argument("--layers", default="all", help="of a recording's layers")
    parser.add_argument("--window", default="all", metavar="STEPS", help="of a recording's steps, e.g. '15-29'")
    parser.add_argument("--branch", default="cond", help="cond, uncond, another that was recorded, or all")
    parser.add_argument(
        "--queries", type=_queries, default="auto", metavar="N", help="estimate from N random queries; all; auto"
    )
    parser.add_argument(
        "--seeds", type=_count, default=1, metavar="N", help="try the presets on N seeds of the demo model; 0: do not"
    )
    parser.add_argument("--first-seed", type=shared.seed, default=1, metavar="S", help="the first of them")
    parser.add_argument("--out", type=Path, default=Path("out/roles"))
    shared.add_sampling(parser)
    parser.set_defaults(command=run)


def _queries(text: str) -> str | int:
    return text if text in ("auto", "all") else shared.positive(text)


def _count(text: str) -> int:
    return 0 if text == "0" else shared.positive(text)


def run(options: argparse.Namespace) -> None:
    from ..reporting.files import write_json, write_picture
    from ..roles.describe import as_json, as_text
    from ..roles.pictures import roles_picture
    from ..roles.presets import PRESETS, heads_of

    if options.preset not in PRESETS:
        raise ValueError(f"There is no preset {options.preset!r}; the presets are {', '.join(PRESETS)}.")
    shared.make_folder(options.out)
    roles, tried = (_of_stores(options), []) if options.stores else _of_demo(options)
    name = f"Head roles · {roles.table.run.grid} · framed: {options.preset}"
    write_picture(options.out / "roles.png", roles_picture(roles, name, heads_of(options.preset, roles)))
    write_json(options.out / "roles.json", as_json(roles))
    print(as_text(roles))
    if tried:
        from dataclasses import asdict

        from ..demo.roles_report import as_text as tried_text
        from ..demo.roles_report import tried_picture

        write_picture(options.out / "tried.png", tried_picture(tried))
        write_json(options.out / "tried.json", [asdict(trial) for trial in tried])
        print(f"\n{tried_text(tried)}")
    print(f"\nPictures: {options.out}/roles.png" + (", tried.png, and a contact sheet for each pair" if tried else ""))


def _of_stores(options: argparse.Namespace) -> Roles:
    from tqdm import tqdm

    from ..recording.store import AttentionStore
    from ..recording.store.query import choose
    from ..roles.look import auto_queries, look
    from ..selection import Indices, Selection

    selection = Selection(Indices(options.layers), steps=Indices(options.window), branches=options.branch)
    stores = [AttentionStore.load(path) for path in options.stores]
    queries = {"auto": auto_queries(stores[0].header), "all": None}.get(options.queries, options.queries)
    with tqdm(total=sum(len(choose(store, selection)) for store in stores), unit="map", desc="looking") as bar:
        return look(stores, selection, queries, options.device, on_call=bar.update)


def _of_demo(options: argparse.Namespace) -> tuple[Roles, list[Trial]]:
    """The roles of the demo model's heads, and what was tried on them; its first seed's clips are drawn."""
    from tqdm import tqdm

    from ..demo import roles as demo
    from ..demo.model import DemoModel
    from ..demo.probe import AttributeProbe
    from ..demo.roles_report import sheet
    from ..reporting.files import write_picture
    from ..tiny_wan.files import PROBE, STEPS, WEIGHTS

    model = DemoModel.load(options.device)
    probe = AttributeProbe.load(WEIGHTS / PROBE).to(options.device)
    settings = shared.sampling(options)
    found: list[Trial] = []
    with tqdm(total=(options.steps or STEPS) * (1 + options.seeds), unit="step", desc="generating") as bar:
        roles = demo.measure(model, **settings, on_step=bar.update)
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            some, clips = demo.trials(model, probe, roles, seed, **settings, on_step=bar.update)
            if not found:
                for pair in demo.TRIED:
                    of = [n for n, trial in enumerate(some) if trial.pair == pair]
                    picture = sheet([some[n] for n in of], clips[[0, *(n + 1 for n in of)]])
                    write_picture(options.out / f"{pair}.png", picture)
            found += some
    return roles, found

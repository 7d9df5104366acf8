"""`vdit sweep`: which layers or heads carry the source's structure, or serve a goal, on the demo model."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import options as shared

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from ..demo.model import DemoModel
    from ..demo.probe import AttributeProbe
    from ..sweep.checkpoint import SweepFolder
    from ..sweep.goal import SearchConfig
    from ..sweep.plan import Sweep

#: Options of a search, as `SearchConfig` and `Goal` name them; none of them goes without --goal.
_SEARCH = ("most_groups", "least_gain", "candidates", "weight")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("sweep", help="which layers or heads carry the source's structure, on the demo model")
    parser.add_argument("--source", default="A car is driving on the highway", metavar="PROMPT")
    parser.add_argument("--target", default="A car is driving on the highway in the winter", metavar="PROMPT")
    parser.add_argument(
        "--mode",
        help="the layers of each row: each (the default), first, last, 'all but one'; or heads: 'each head', 'heads of "
        "each layer', or 'groups', as --group says",
    )
    parser.add_argument("--heads", metavar="MASK", help="the heads of the modes of heads, e.g. '3-7', '5@0, 5@3' (all)")
    parser.add_argument(
        "--group", action="append", metavar="MASK", help="a head group, e.g. '5@0, 5@3'; once for each row"
    )
    parser.add_argument(
        "--goal",
        metavar="WORDS",
        help="search the layers, heads or groups that serve it best, e.g. 'keep pan, free object': near the source in "
        "the one, near the plain target in the other",
    )
    parser.add_argument("--weight", type=float, metavar="W", help="of what is kept, the rest is of what is free (0.5)")
    parser.add_argument("--most-groups", type=int, metavar="N", help="in the found mask (8)")
    parser.add_argument("--least-gain", type=float, metavar="G", help="of the trade, for a group to be taken (0.01)")
    parser.add_argument("--candidates", type=int, metavar="N", help="groups tried in each round but the first (14)")
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
    from ..demo import sweep as demo
    from ..demo.model import DemoModel
    from ..demo.probe import AttributeProbe
    from ..head_mask import HeadMask
    from ..selection import Indices
    from ..sweep.plan import AT_ONCE, batches
    from ..tiny_wan.files import GUIDANCE, PROBE, STEPS, WEIGHTS
    from ..transfer import TransferConfig

    if options.ray and find_spec("ray") is None:
        raise ValueError("--ray needs the package ray: pip install 'vdit-attention[ray]'")
    start = time.monotonic()
    mode = _mode(options)
    config = _search_config(options)
    model = DemoModel.load(options.device)
    sampling: dict[str, Any] = (
        {"steps": STEPS, "guidance": GUIDANCE} | shared.sampling(options) | {"seed": options.seed}
    )
    heads = HeadMask(options.heads) if options.heads else None
    sweep = demo.plan(
        model,
        options.source,
        options.target,
        mode,
        TransferConfig(steps=Indices(options.window)),
        mask=heads,
        text="\n".join(options.group or ()),
        **sampling,
    )
    batches([0, 1], AT_ONCE if options.rows_per_batch is None else options.rows_per_batch)  # refuses what cannot be
    probe = AttributeProbe.load(WEIGHTS / PROBE).to(model.device)
    sample = partial(_sample, options, model, sampling)
    if config is None:
        _score(options, model, probe, sweep, sample, start)
    else:
        _search(options, model, probe, sweep, config, sample, start)


def _mode(options: argparse.Namespace) -> str:
    """The mode of a sweep. Raises ValueError for options that go with another."""
    from ..sweep.groups import GROUPS, OF_MASK

    mode: str = options.mode or (GROUPS if options.group else "each")
    if options.group and mode != GROUPS:
        raise ValueError(f"--group goes with --mode {GROUPS}, not with --mode '{mode}'.")
    if options.heads and mode not in OF_MASK:
        modes = " or ".join(f"'{name}'" for name in OF_MASK)
        raise ValueError(f"--heads goes with --mode {modes}, not with --mode '{mode}'.")
    return mode


def _search_config(options: argparse.Namespace) -> SearchConfig | None:
    """What to search, if anything. Raises ValueError for a goal that cannot be."""
    from ..sweep.goal import Goal, SearchConfig

    given = {name: value for name in _SEARCH if (value := getattr(options, name)) is not None}
    if options.goal is None:
        for name in given:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} goes with --goal, for example --goal 'keep pan, free object'.")
        return None
    return SearchConfig(Goal.parse(options.goal, given.pop("weight", 0.5)), **given)


def _say(problem: str) -> None:
    print(f"vdit: {problem}", file=sys.stderr)


def _sample(
    options: argparse.Namespace,
    model: DemoModel,
    sampling: dict[str, Any],
    sweep: Sweep,
    folder: SweepFolder | None,
    done: dict[int, Tensor],
) -> Tensor:
    """The latents of a sweep, sampled here or on a cluster, with a bar."""
    from tqdm import tqdm

    from ..demo import sweep as demo
    from ..sweep.plan import AT_ONCE, batches
    from ..sweep.ray_runner import run_on_ray
    from ..sweep.run import missing
    from ..sweep.run import run as run_here

    at_once = AT_ONCE if options.rows_per_batch is None else options.rows_per_batch
    todo = batches(missing(sweep, done), at_once)
    if options.ray:  # workers tell of finished batches only, and their number decides how many there are
        with tqdm(unit="video", desc="sampling", disable=not todo) as bar:

            def started(workers: int, plan: Sequence[Sequence[int]]) -> None:
                _say(f"{workers} workers, {len(plan)} batches")
                bar.reset(sum(map(len, plan)))

            return run_on_ray(
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
    total = sum(len(batch) for batch in todo) * sampling["steps"]
    with tqdm(total=total, unit="video step", desc="sampling", disable=not todo) as bar:
        return run_here(sweep, demo.sampler(model, **sampling, on_step=bar.update), folder, at_once, done)


def _score(
    options: argparse.Namespace, model: DemoModel, probe: AttributeProbe, sweep: Sweep, sample: Any, start: float
) -> None:
    """A sweep, every row of it scored."""
    from ..demo import sweep as demo
    from ..sweep import pictures
    from ..sweep.checkpoint import SweepFolder
    from ..sweep.scores import measure

    folder = SweepFolder(options.out, sweep)
    clips = demo.decode(model, sample(sweep, folder, folder.load(_say)))
    result = measure(sweep, clips, demo.readings(probe, options.target, clips))
    _write(options.out, "sweep.json", result.as_dict())
    _draw(options.out, {"bars.png": pictures.bars(result), "sheet.png": pictures.sheet(result, clips)})
    print(result.as_text())
    print(f"\n{result.verdict()} {time.monotonic() - start:.1f} s.")
    print(f"See {options.out / 'bars.png'} and {options.out / 'sheet.png'}.")


def _search(
    options: argparse.Namespace,
    model: DemoModel,
    probe: AttributeProbe,
    sweep: Sweep,
    config: SearchConfig,
    sample: Any,
    start: float,
) -> None:
    """A search by goal among the rows of a sweep."""
    from ..demo import sweep as demo
    from ..demo.goal import measures
    from ..sweep import search_pictures
    from ..sweep.search import layer_groups, search

    found = search(
        layer_groups(sweep, demo.signature(model).heads),
        config,
        sample,
        lambda latents: demo.decode(model, latents),
        measures(probe),
        options.out,
        on_round=lambda number, count: _say(f"round {number}: {count} groups"),
        say=_say,
    )
    _write(options.out, "search.json", found.as_dict())
    found.mask.save(options.out / "found.headmask")
    _draw(options.out, {"search.png": search_pictures.chart(found), "sheet.png": search_pictures.sheet(found)})
    print(found.as_text())
    print(f"\n{time.monotonic() - start:.1f} s. The mask is {options.out / 'found.headmask'}.")
    print(f"See {options.out / 'search.png'} and {options.out / 'sheet.png'}.")


def _write(folder: Path, name: str, report: dict[str, Any]) -> None:
    from ..atomic import whole_file

    with whole_file(folder / name) as part:
        part.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _draw(folder: Path, pictures: dict[str, Image]) -> None:
    from ..atomic import whole_file

    for name, picture in pictures.items():
        with whole_file(folder / name) as part:
            picture.save(part)

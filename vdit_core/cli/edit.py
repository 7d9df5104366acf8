"""`vdit edit`: a clip changed by a prompt, on the demo model."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from . import options as shared


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("edit", help="a clip changed by a prompt, on the demo model")
    parser.add_argument("clip", help="a video file, or demo for the one that ships")
    parser.add_argument("source", help="what it shows")
    parser.add_argument("targets", nargs="+", metavar="target", help="what it shall show; several make several edits")
    parser.add_argument("--change", type=float, help="how much may change, from 0 to 1: the share of the schedule")
    parser.add_argument("--guidance", type=float, help="towards the target prompt: more makes a stronger edit")
    parser.add_argument("--source-guidance", type=float, help="towards the source prompt")
    parser.add_argument("--draws", type=shared.positive, help="of noise that are averaged in each step")
    parser.add_argument("--hold", type=float, help="put back what changed by less than this share of the most")
    parser.add_argument("--mask", default="all", help="layers, or heads of layers, that take the clip's maps")
    parser.add_argument("--seed", type=shared.seed, default=0)
    parser.add_argument("--steps", type=shared.positive, help="sampling steps of the whole schedule")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--out", type=Path, default=Path("out/edit"))
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from ..atomic import whole_file
    from ..demo.footage import edit, read
    from ..demo.model import DemoModel
    from ..footage.config import EditConfig
    from ..head_mask import HeadMask
    from ..reporting.labelled import contact_sheet, frames, side_by_side
    from ..reporting.video import write_mp4
    from ..tiny_wan.files import STEPS
    from ..transfer import TransferConfig

    given = {
        "change": options.change,
        "target_guidance": options.guidance,
        "source_guidance": options.source_guidance,
        "draws": options.draws,
        "hold": options.hold,
    }
    config = EditConfig(**{name: value for name, value in given.items() if value is not None})
    where, steps = TransferConfig(HeadMask(options.mask)), options.steps or STEPS
    start = time.monotonic()
    clip = read(options.clip)
    shared.make_folder(options.out)
    model = DemoModel.load(options.device)
    with tqdm(total=steps, unit="step", desc="editing", leave=False) as bar:
        edited, report = edit(
            model, clip, options.source, options.targets, config, where, steps, options.seed, on_step=bar.update
        )
    clips = {f"the clip: {options.source}": clip[0]}
    for n, (prompt, one) in enumerate(zip(options.targets, edited.cpu(), strict=True), start=1):
        clips[f"{n}: {prompt}"] = one
        write_mp4([picture.resize((512, 512)) for picture in frames(one)], options.out / f"edit_{n}.mp4")
    write_mp4(side_by_side(clips), options.out / "edits.mp4")
    with whole_file(options.out / "edits.png") as part:
        contact_sheet(clips).save(part)
    print(f"{report}. {time.monotonic() - start:.1f} s. See {options.out / 'edits.mp4'} and edits.png beside it.")

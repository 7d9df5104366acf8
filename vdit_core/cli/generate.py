"""`vdit generate`: one clip of the demo model."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import options as shared


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("generate", help="one clip of the demo model")
    parser.add_argument("prompt")
    parser.add_argument("--seed", type=shared.seed, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/clip.mp4"), help="an .mp4 file")
    shared.add_sampling(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    from ..demo.model import DemoModel
    from ..reporting.labelled import frames
    from ..reporting.video import write_mp4

    if options.out.suffix != ".mp4":
        raise ValueError(f"{options.out} is not an .mp4 file name.")
    shared.make_folder(options.out.parent)
    model = DemoModel.load(options.device)
    clip = model.generate([options.prompt], [options.seed], **shared.sampling(options))[0]
    write_mp4([picture.resize((512, 512)) for picture in frames(clip)], options.out)
    print(options.out)

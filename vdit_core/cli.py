"""`vdit`: the command line."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except (ValueError, OSError) as error:
        print(f"vdit: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"vdit: {error}. Install the demo's needs: pip install 'comfyui-vdit-attention[demo]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("vdit: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vdit", description="See and steer attention inside video diffusion transformers."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="the paper's headline on the demo model: videos, pictures and a table")
    demo.add_argument("--pairs", default="all", help="red, winter, truck, dog (comma-separated), or all")
    demo.add_argument("--seeds", type=_positive, default=1, metavar="N", help="how many seeds a pair")
    demo.add_argument("--first-seed", type=int, default=1, metavar="S", help="the first of them")
    demo.add_argument(
        "--layers", default="all", metavar="MASK", help="layers to transfer, e.g. 'all', '3-7', 'all, 3:0.5'"
    )
    demo.add_argument("--window", default="all", metavar="STEPS", help="steps to transfer in, e.g. 'all', '0%%-50%%'")
    demo.add_argument("--out", type=Path, default=Path("out"))
    demo.set_defaults(command=_demo)

    generate = commands.add_parser("generate", help="one clip of the demo model")
    generate.add_argument("prompt")
    generate.add_argument("--seed", type=int, default=0)
    generate.add_argument("--out", type=Path, default=Path("out/clip.mp4"), help="an .mp4 file")
    generate.set_defaults(command=_generate)

    for command in (demo, generate):
        command.add_argument("--device", default="cpu", help="cpu or cuda")
        command.add_argument("--steps", type=_positive, help="sampling steps")
        command.add_argument("--guidance", type=float, help="classifier-free guidance scale")
    return parser


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def _sampling(options: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name in ("steps", "guidance") if (value := getattr(options, name)) is not None}


def _demo(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from .demo import pairs, report
    from .demo.model import DemoModel
    from .demo.probe import AttributeProbe
    from .demo.shipped import PROBE, STEPS, WEIGHTS
    from .selection import Indices, LayerMask
    from .transfer import Where

    chosen = pairs.choose(options.pairs)
    where = Where(LayerMask(options.layers), steps=Indices(options.window))
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    start = time.monotonic()
    model = DemoModel.load(options.device)
    probe = AttributeProbe.load(WEIGHTS / PROBE).to(options.device)
    total = pairs.generations(chosen, len(seeds)) * (options.steps or STEPS)
    with tqdm(total=total, unit="step", desc="generating") as bar:
        results = pairs.run(model, probe, chosen, seeds, where, **_sampling(options), on_step=bar.update)
    found = report.write(results, time.monotonic() - start, options.device, options.out)
    print(report.as_text(found))
    print(f"\nReplaced {found['replaced_calls']} of {found['expected_calls']} calls, {found['seconds']} s.")
    print(f"Open {options.out / 'index.html'} to see the videos.")


def _generate(options: argparse.Namespace) -> None:
    from .demo.model import DemoModel
    from .video import frames, write_mp4

    if options.out.suffix != ".mp4":
        raise ValueError(f"{options.out} is not an .mp4 file name.")
    clip = DemoModel.load(options.device).generate([options.prompt], [options.seed], **_sampling(options))[0]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_mp4([picture.resize((512, 512)) for picture in frames(clip)], options.out)
    print(options.out)


if __name__ == "__main__":
    sys.exit(main())

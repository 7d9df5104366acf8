"""`vdit sparsity import`: a density profile from tables of densities that others published."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..call import ModelSignature

#: Layers, heads and the width of a head; HunyuanVideo's kinds of blocks.
SHAPES = {
    "wan-1.3b": (30, 12, 128),
    "wan-5b": (30, 24, 128),
    "wan-14b": (40, 40, 128),
    "hunyuan-video": (60, 24, 128, (("double", 20), ("single", 40))),
}


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "import", help="make a profile from published tables: CSV with the columns Step, Layer, Head, Sparsity"
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="tables of one model; their mean is taken")
    parser.add_argument("--model", required=True, choices=SHAPES, help="whose shape the tables have")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="the profile to write, .json")
    parser.add_argument("--steps", default="all", help="steps of each table, from 0, such as 0-11; default: all")
    parser.add_argument("--mass", type=float, default=0.95, help="of the attention that these keys hold; default: 0.95")
    parser.add_argument("--name", default="", help="what to call the profile; default: the first file's name")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write a heat map of layers and heads, too")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    from ..selection import Indices
    from ..sparse.density_statistics import changes, explained
    from ..sparse.density_table import profile_of, read

    model, steps = signature(options.model), Indices(options.steps)
    tables = [read(path, model) for path in options.files]
    measured: dict[str, str | int | float] = {
        "files": ", ".join(path.name for path in options.files),
        "steps": options.steps,
    }
    name = options.name or options.files[0].stem
    made = profile_of(tables, model, steps, options.mass, name, measured)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    made.save(options.out)
    for path, table in zip(options.files, tables, strict=True):
        part, found = explained(table.densities), changes(table.densities)
        print(
            f"{path.name}: {len(table.steps)} steps, mean {table.densities.mean():.1%}; of the variance layers and "
            f"heads explain {part.head:.1%}, layers {part.layer:.1%}, steps {part.step:.1%}."
        )
        if found:
            most = max(found, key=lambda change: change.times)
            print(
                f"  Between steps {most.after} and {most.after + 1} (from 0) it changes by {most.distance:.4f}, "
                f"{most.times:.1f} times as much as before and behind; rank correlation {most.correlation:.3f}."
            )
    if options.picture:
        from ..atomic import whole_file
        from ..sparse.pictures import needed_by

        with whole_file(options.picture) as part_file:
            needed_by(made).save(part_file)
    print(f"See {options.out}.")


def signature(name: str) -> ModelSignature:
    """The shape that one of SHAPES names."""
    from ..call import ModelSignature

    return ModelSignature(*SHAPES[name])  # type: ignore[arg-type]

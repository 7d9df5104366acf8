"""What recordings weigh, by resolution, model and quantization: the tables of docs/limits.md.

python benchmarks/limits.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from vdit_core.call import ModelSignature, TokenGrid
from vdit_core.recording.store import Header
from vdit_core.recording.store.storage import weight

MODELS = {"1.3B": ModelSignature(30, 12, 128), "14B": ModelSignature(40, 40, 128)}
#: Width, height and frames of videos.
VIDEOS = ((832, 480, 33), (832, 480, 81), (1280, 720, 81))
STEPS, BRANCHES = 50, 2
ROOMS = (8, 16, 32, 64, 128, 512)
MIB, GIB = 2**20, 2**30


def grid(width: int, height: int, frames: int) -> TokenGrid:
    """The tokens of a video: its VAE takes 4 frames and 8 x 8 pixels together, the model 2 x 2 of these."""
    return TokenGrid(1 + (frames - 1) // 4, height // 16, width // 16)


def header(model: str, video: tuple[int, int, int], quantization: str) -> Header:
    signature = MODELS[model]
    return Header(signature, grid(*video), (), tuple(range(signature.heads)), 1, quantization, "bfloat16")


def name(video: tuple[int, int, int]) -> str:
    return "{} × {} × {}".format(*video)


def calls() -> Iterator[str]:
    """What a call weighs: one layer, step and branch."""
    yield "| video | tokens | model | exact | int8 |"
    yield "|---|---|---|---|---|"
    for video in VIDEOS:
        for model in MODELS:
            exact, packed = (header(model, video, quantization) for quantization in ("none", "int8"))
            sizes = (weight("RAM", exact), weight("RAM", packed))
            cells = " | ".join(f"{size / MIB:,.0f} MiB" for size in sizes)
            yield f"| {name(video)} | {exact.grid.tokens:,} | {model} | {cells} |"


def recordings() -> Iterator[str]:
    """What recordings of 50 steps and both branches weigh."""
    yield "| video | model | 1 layer | 3 layers | every layer | every layer, int8 |"
    yield "|---|---|---|---|---|---|"
    for video in VIDEOS:
        for model, signature in MODELS.items():
            exact = header(model, video, "none")
            run = STEPS * BRANCHES * exact.entry_bytes()
            packed = STEPS * BRANCHES * replace(exact, quantization="int8").entry_bytes()
            sizes = (run, 3 * run, signature.layers * run, signature.layers * packed)
            yield f"| {name(video)} | {model} | {' | '.join(f'{size / GIB:,.1f} GiB' for size in sizes)} |"


def fitting() -> Iterator[str]:
    """How many layers of 50 steps and both branches fit into a room, in int8."""
    yield f"| video | model | {' | '.join(f'{room} GiB' for room in ROOMS)} |"
    yield f"|---|---|{'---|' * len(ROOMS)}"
    for video in VIDEOS:
        for model, signature in MODELS.items():
            run = STEPS * BRANCHES * header(model, video, "int8").entry_bytes()
            fit = (min(signature.layers, int(room * GIB // run)) for room in ROOMS)
            yield f"| {name(video)} | {model} | {' | '.join(map(str, fit))} |"


def working() -> Iterator[str]:
    """What a transfer holds on the GPU: q and k of two layers, of both branches, in the model's quantization."""
    yield "| video | 1.3B | 14B |"
    yield "|---|---|---|"
    for video in VIDEOS:
        sizes = (2 * BRANCHES * header(model, video, "none").entry_bytes() for model in MODELS)
        yield f"| {name(video)} | {' | '.join(f'{size / GIB:.2f} GiB' for size in sizes)} |"


def main() -> None:
    for table in (calls, recordings, fitting, working):
        print(table.__doc__, *table(), "", sep="\n")


if __name__ == "__main__":
    main()

"""Tables of densities by step, layer and head, as others publish them, read from CSV and made a `DensityProfile`.

    Step,Layer,Head,Sparsity
    1,0,0,0.0129

Steps are any whole numbers; layers and heads count from 0. "Sparsity" there is a density: the mean share of the keys
that hold a query's mass. Such files come from anyone: every line is checked.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..call import ModelSignature
from ..selection import Indices
from .density_profile import DensityProfile
from .profile import ProfileError

COLUMNS = ("Step", "Layer", "Head", "Sparsity")
_LARGEST = 2**27  # bytes of a file; 50 steps of 60 x 24 heads take 1.2 MB
_STEPS = 1000  # of a table
_NUMBER = re.compile(r"(\d{1,40}(\.\d{0,40})?|\.\d{1,40})([eE][+-]?\d{1,3})?", re.ASCII)
_DECIMALS = 4  # of a profile's figures, as the published ones have


@dataclass(frozen=True, eq=False)
class DensityTable:
    """steps: their numbers in the file, rising. densities: float64 (steps, layers, heads), from 0 to 1."""

    steps: tuple[int, ...]
    densities: np.ndarray


def read(path: Path, model: ModelSignature) -> DensityTable:
    """A file's table, whole.

    Raises:
        ProfileError: naming the file, the line, what stands there and what was expected.
        OSError: if it cannot be read.
    """
    lines = _rows(path)
    _, head = next(lines, (1, []))
    missing = [name for name in COLUMNS if head.count(name) != 1]
    if missing:
        raise ProfileError(
            f"{path}, line 1: expected the columns {', '.join(COLUMNS)}, each once; "
            f"{', '.join(missing)} not so, in {_shown(','.join(head))}."
        )
    places = [head.index(name) for name in COLUMNS]
    found: dict[int, np.ndarray] = {}
    for line, row in lines:
        if len(row) != len(head):
            raise ProfileError(f"{path}, line {line}: expected {len(head)} fields, found {len(row)}.")
        step, layer, head_index = (
            _whole(path, line, name, row[place], most)
            for name, place, most in zip(COLUMNS, places, (10**9, model.layers - 1, model.heads - 1), strict=False)
        )
        if step not in found:
            if len(found) == _STEPS:
                raise ProfileError(f"{path}, line {line}: step {step} is one more than the {_STEPS} a table may have.")
            found[step] = np.full((model.layers, model.heads), np.nan)
        if not math.isnan(found[step][layer, head_index]):
            raise ProfileError(f"{path}, line {line}: step {step}, layer {layer}, head {head_index} was there before.")
        found[step][layer, head_index] = _share(path, line, row[places[-1]])
    if not found:
        raise ProfileError(f"{path} has no lines but its columns.")
    for step, table in sorted(found.items()):
        if len(holes := np.argwhere(np.isnan(table))):
            layer, head_index = holes[0]
            raise ProfileError(
                f"{path}: step {step}, layer {layer}, head {head_index} is missing ({len(holes)} of the step's "
                f"{table.size} values). Expected {model.layers} layers x {model.heads} heads in every step."
            )
    return DensityTable(tuple(sorted(found)), np.stack([table for _, table in sorted(found.items())]))


def profile_of(
    tables: Sequence[DensityTable],
    model: ModelSignature,
    steps: Indices | None = None,
    mass: float = 0.95,
    name: str = "",
    measured: dict[str, str | int | float] | None = None,
) -> DensityProfile:
    """The mean over the chosen steps of all tables.

    steps: of each table, counted from 0 in the order of their numbers; None: all.

    Raises:
        SelectionError: if a step is out of range. ProfileError: if no step is chosen.
    """
    chosen = [table.densities[list((steps or Indices()).resolve(len(table.steps), "step"))] for table in tables]
    every = np.concatenate(chosen)
    if not len(every):
        raise ProfileError(f"The steps {str(steps and steps.text)!r} are none of the table's.")
    needed = every.mean(0).round(_DECIMALS)
    return DensityProfile(model, tuple(tuple(map(float, row)) for row in needed), mass, name, measured or {})


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields; empty lines are left out."""
    if path.stat().st_size > _LARGEST:
        raise ProfileError(f"{path} is larger than {_LARGEST:,} bytes; it is no table of densities.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"byte {error.start} is {error.object[error.start]:#x}"
        raise ProfileError(f"{path} is not text in UTF-8: {found}.") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, [field.strip() for field in row]
    except csv.Error as error:
        raise ProfileError(f"{path}, line {reader.line_num}: this is not CSV ({error}).") from None


def _whole(path: Path, line: int, name: str, text: str, most: int) -> int:
    if not re.fullmatch(r"\d{1,10}", text, re.ASCII) or int(text) > most:
        raise ProfileError(f"{path}, line {line}: {name} is {_shown(text)}; expected a whole number, 0 to {most}.")
    return int(text)


def _share(path: Path, line: int, text: str) -> float:
    if not _NUMBER.fullmatch(text) or not 0 <= (value := float(text)) <= 1:
        raise ProfileError(f"{path}, line {line}: {COLUMNS[-1]} is {_shown(text)}; expected a number from 0 to 1.")
    return value


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}…")

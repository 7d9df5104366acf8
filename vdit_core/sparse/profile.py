"""A sparsity profile: what each layer and head of a model tolerates, as measured, and so how a density is best spent.

File format, version 1: JSON, the fields of `SparseProfile`, "format": "vdit sparsity profile", "version": 1, and
"density": what the figures give each layer and head at `keep`, for readers.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import whole_file
from ..call import ModelSignature
from ..errors import VDiTError
from .allocation import allocate
from .methods import BY_MASS, METHODS

FORMAT, VERSION = "vdit sparsity profile", 1

#: A number for each head and level.
Table = tuple[tuple[float, ...], ...]


class ProfileError(VDiTError, ValueError):
    """A profile that cannot be read, or that does not fit the model or method it is used with."""


@dataclass(frozen=True)
class SparseProfile:
    """What was measured of a model.

    method: what was measured, see `methods.METHODS`. keep: the mean density that it is made for; others can be asked.
    levels: densities, rising, below 1. errors: of each layer and head and level, the mean squared error that it causes,
    in the attention output or, weighted, in the video: comparable among heads. temperature: likewise, the one that fits
    that density best; 1 is the model's own.
    dense_layers: computed whole, whatever their figures. dense_first, dense_last: shares of the steps, likewise.
    measured: on what, as names and values.

    Raises:
        ProfileError: if the tables do not fit each other, naming what does not.
    """

    model: ModelSignature
    method: str
    keep: float
    levels: tuple[float, ...]
    errors: tuple[Table, ...]
    temperature: tuple[Table, ...]
    dense_layers: tuple[int, ...] = ()
    dense_first: float = 0.0
    dense_last: float = 0.0
    measured: dict[str, str | int | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        layers, heads, levels = self.model.layers, self.model.heads, len(self.levels)
        if self.method not in METHODS:
            raise ProfileError(f"There is no method {self.method!r}; the methods are {', '.join(METHODS)}.")
        if self.method in BY_MASS:
            raise ProfileError(f"The method {self.method!r} adapts to each head by itself; it takes no profile.")
        for name, value in (("keep", self.keep), ("dense_first", self.dense_first), ("dense_last", self.dense_last)):
            if not 0 <= value <= 1:
                raise ProfileError(f"{name} is {value}, and must be from 0 to 1.")
        if not levels or list(self.levels) != sorted(set(self.levels)) or not 0 < self.levels[0] <= self.levels[-1] < 1:
            raise ProfileError(f"The levels {list(self.levels)} must rise and lie between 0 and 1.")
        for name, table, least in (("errors", self.errors, 0.0), ("temperature", self.temperature, 0.01)):
            try:
                found = np.array(table, dtype=float)
            except ValueError:
                found = np.empty(0)
            if found.shape != (layers, heads, levels) or not np.isfinite(found).all() or (found < least).any():
                raise ProfileError(f"{name} must hold {layers} x {heads} x {levels} numbers, {least:g} or more.")
        if beyond := [layer for layer in self.dense_layers if not 0 <= layer < layers]:
            raise ProfileError(f"Layers {beyond} are not among the model's {layers}.")

    def densities(self, keep: float | None = None) -> np.ndarray:
        """The density of each layer and head, float64 (layers, heads), for a mean of `keep`; None: its own."""
        shape = self.model.layers, self.model.heads
        fixed = np.zeros(shape, bool)
        fixed[list(self.dense_layers)] = True
        errors = np.array(self.errors, dtype=float).reshape(-1, len(self.levels))
        keep = self.keep if keep is None else keep
        return allocate(errors, np.array(self.levels), keep, fixed.ravel()).reshape(shape)

    def temperatures(self, densities: np.ndarray) -> np.ndarray:
        """The temperature of each layer and head at these densities, float64 (layers, heads); 1 at density 1."""
        points = np.append(self.levels, 1.0)
        values = np.append(np.array(self.temperature, dtype=float), np.ones((*densities.shape, 1)), axis=-1)
        pairs = zip(densities.ravel(), values.reshape(-1, len(points)), strict=True)
        return np.array([np.interp(density, points, row) for density, row in pairs]).reshape(densities.shape)

    def check(self, model: ModelSignature, method: str) -> None:
        """Raises ProfileError if it was measured on another model or of another method, naming both."""
        if self.model != model:
            raise ProfileError(f"This profile was measured on a model of {self.model}; this one has {model}.")
        if self.method != method:
            raise ProfileError(
                f"This profile was measured for the method {self.method!r}, not {method!r}. Choose that method, or "
                "measure a profile for this one."
            )

    def __str__(self) -> str:
        return f"SparseProfile({self.method}, keep {self.keep:.0%}, {self.model})"

    def to_json(self) -> str:
        found = {"format": FORMAT, "version": VERSION} | asdict(self)
        found["density"] = [[round(float(value), 4) for value in row] for row in self.densities()]
        return json.dumps(found, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, name: str = "this text") -> SparseProfile:
        """Raises ProfileError naming the file and what is wrong with it."""
        try:
            found = json.loads(text)
            if not isinstance(found, dict) or found.get("format") != FORMAT:
                raise ProfileError("it is JSON of another kind")
            if found.get("version") != VERSION:
                raise ProfileError(f"it has version {found.get('version')!r}; this pack reads version {VERSION}")
            return cls(
                model=ModelSignature(**{key: _whole(value) for key, value in found["model"].items()}),
                method=str(found["method"]),
                keep=_number(found["keep"]),
                levels=tuple(map(_number, found["levels"])),
                errors=_tables(found["errors"]),
                temperature=_tables(found["temperature"]),
                dense_layers=tuple(map(_whole, found["dense_layers"])),
                dense_first=_number(found["dense_first"]),
                dense_last=_number(found["dense_last"]),
                measured={str(key): _plain(value) for key, value in found["measured"].items()},
            )
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            what = f"{type(error).__name__}: {error}" if not isinstance(error, ProfileError) else str(error)
            raise ProfileError(f"{name} is not a whole sparsity profile: {what}. Measure it again.") from None

    def save(self, path: Path) -> None:
        """Write one whole file, or leave nothing behind. Raises OSError as the disk says."""
        with whole_file(Path(path)) as part:
            part.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> SparseProfile:
        """Raises ProfileError, or FileNotFoundError if there is no file."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"There is no sparsity profile at {path}.")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            text = ""
        return cls.from_json(text, str(path))


def _tables(value: Any) -> tuple[Table, ...]:
    return tuple(tuple(tuple(map(_number, head)) for head in layer) for layer in value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a whole number")
    return value


def _plain(value: Any) -> str | int | float:
    if not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is no plain value")
    return value

"""A sparsity profile: what each layer and head of a model tolerates, as measured, and so how a density is best spent.

File format, version 2: JSON, the fields of `SparseProfile`, "format": "vdit sparsity profile", "version": 2, and
"densities": what the figures give each layer and head at `density`, for readers. Version 1, of 0.1.0-dev, called the
density "keep", and its methods otherwise (`methods.RENAMED`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..call import ModelSignature
from ..errors import VDiTError
from ..json_fields import number
from ..json_file import JsonFile
from .allocation import allocate
from .methods import METHODS, RENAMED, TOP_P

#: A number for each head and level.
Table = tuple[tuple[float, ...], ...]


class ProfileError(VDiTError, ValueError):
    """A profile that cannot be read, or that does not fit the model or method it is used with."""


@dataclass(frozen=True)
class SparseProfile(JsonFile):
    """What was measured of a model.

    method: what was measured, one of `methods.METHODS`.
    density: the mean density that it is made for; others can be asked.
    levels: densities, rising, below 1.
    errors: for each layer, head and level the mean squared error that it causes, in the attention output or, weighted,
        in the video: comparable among heads.
    temperature: likewise, the one that fits that density best; 1 is the model's own.
    measured: on what, as names and values.

    Raises:
        ProfileError: if the tables do not fit each other, naming what does not.
    """

    format, version, thing = "vdit sparsity profile", 2, "sparsity profile"
    remedy, error = "Measure it again", ProfileError

    model: ModelSignature
    method: str
    density: float
    levels: tuple[float, ...]
    errors: tuple[Table, ...]
    temperature: tuple[Table, ...]
    measured: dict[str, str | int | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        layers, heads, levels = self.model.layers, self.model.heads, len(self.levels)
        if self.method not in METHODS:
            raise ProfileError(f"There is no method {self.method!r}; the methods are {', '.join(METHODS)}.")
        if self.method in TOP_P:
            raise ProfileError(f"The method {self.method!r} adapts to each head by itself; it takes no profile.")
        if not 0 <= self.density <= 1:
            raise ProfileError(f"density is {self.density}, and must be from 0 to 1.")
        if not levels or list(self.levels) != sorted(set(self.levels)) or not 0 < self.levels[0] <= self.levels[-1] < 1:
            raise ProfileError(f"The levels {list(self.levels)} must rise and lie between 0 and 1.")
        for name, table, least in (("errors", self.errors, 0.0), ("temperature", self.temperature, 0.01)):
            try:
                found = np.array(table, dtype=float)
            except ValueError:
                found = np.empty(0)
            if found.shape != (layers, heads, levels) or not np.isfinite(found).all() or (found < least).any():
                raise ProfileError(f"{name} must hold {layers} x {heads} x {levels} numbers, {least:g} or more.")

    def densities(self, density: float | None = None) -> np.ndarray:
        """The density of each layer and head, float64 (layers, heads), for such a mean; None: its own."""
        errors = np.array(self.errors, dtype=float).reshape(-1, len(self.levels))
        found = allocate(errors, np.array(self.levels), self.density if density is None else density)
        return found.reshape(self.model.layers, self.model.heads)

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

    @property
    def label(self) -> str:
        """What it is, in a few words."""
        return self.method

    @property
    def title(self) -> str:
        """What it is called in a sentence."""
        return "measured profile"

    def __str__(self) -> str:
        return f"SparseProfile({self.method}, density {self.density:.0%}, {self.model})"

    def to_json(self) -> str:
        found = self.head() | asdict(self) | {"model": self.model.as_json()}
        found["densities"] = [[round(float(value), 4) for value in row] for row in self.densities()]
        return json.dumps(found, indent=1) + "\n"

    @classmethod
    def upgraded(cls, found: dict[str, Any]) -> dict[str, Any]:
        return _of_version_1(found) if found.get("version") == 1 else super().upgraded(found)

    @classmethod
    def from_fields(cls, found: dict[str, Any]) -> SparseProfile:
        return cls(
            model=ModelSignature.from_json(found["model"]),
            method=str(found["method"]),
            density=number(found["density"]),
            levels=tuple(map(number, found["levels"])),
            errors=_tables(found["errors"]),
            temperature=_tables(found["temperature"]),
            measured=plain_fields(found["measured"]),
        )


def _of_version_1(found: dict[str, Any]) -> dict[str, Any]:
    """Such a file as version 2 has it."""
    if dense := [name for name in ("dense_layers", "dense_first", "dense_last") if found.get(name)]:
        raise ProfileError(
            f"it names {', '.join(dense)}, which a profile no longer holds: set them in Sparse Attention, and remove "
            "them from the file"
        )
    method = found["method"]
    return found | {"density": found["keep"], "method": RENAMED.get(method, method)}


def _tables(value: Any) -> tuple[Table, ...]:
    return tuple(tuple(tuple(map(number, head)) for head in layer) for layer in value)


def plain_fields(values: Mapping[str, Any]) -> dict[str, str | int | float]:
    """A mapping to texts and numbers. Raises ValueError naming a value that is neither."""
    for value in values.values():
        if not isinstance(value, str | int | float):
            raise ValueError(f"{value!r} is not text or a number")
    return {str(key): value for key, value in values.items()}

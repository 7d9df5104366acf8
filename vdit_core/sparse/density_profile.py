"""A density profile: the share of the keys that each head needs to hold a given part of its attention's mass.

It knows less than a `SparseProfile`, which holds errors of the output: what a head loses with fewer keys it does not
say. So a density is spent by need (`allocation.by_need`).

File format, version 1: JSON, the fields of `DensityProfile`, "format": "vdit density profile", "version": 1; `needed`
has a line for each layer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..call import ModelSignature
from ..json_fields import number
from ..json_file import JsonFile
from .allocation import by_need
from .methods import BY_STRENGTH
from .profile import ProfileError, plain_fields


@dataclass(frozen=True)
class DensityProfile(JsonFile):
    """What each head of a model needs.

    needed: for each layer and head the share of the keys, from 0 to 1, that hold `mass` of a query's attention; a mean
        over queries and steps.
    mass: from 0 to 1.
    name: of the model it was measured on, for messages.
    measured: by whom and on what, as names and values.

    Raises:
        ProfileError: naming what is wrong.
    """

    format, version, thing = "vdit density profile", 1, "density profile"
    remedy, error = "Make it again", ProfileError

    model: ModelSignature
    needed: tuple[tuple[float, ...], ...]
    mass: float = 0.95
    name: str = ""
    measured: dict[str, str | int | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        layers, heads = self.model.layers, self.model.heads
        if not 0 < self.mass <= 1:
            raise ProfileError(f"mass is {self.mass}, and must be above 0, up to 1.")
        try:
            found = np.array(self.needed, dtype=float)
        except (TypeError, ValueError):
            found = np.empty(0)
        if found.shape != (layers, heads) or not ((found >= 0) & (found <= 1)).all():
            raise ProfileError(f"needed must hold {layers} x {heads} numbers from 0 to 1, a row for each layer.")

    def table(self) -> np.ndarray:
        """`needed` as float64 (layers, heads)."""
        return np.array(self.needed, dtype=float)

    def densities(self, density: float) -> np.ndarray:
        """The density of each layer and head, float64 (layers, heads), for such a mean."""
        return by_need(self.table(), density)

    def temperatures(self, densities: np.ndarray) -> np.ndarray:
        """The temperature of each layer and head, float64 (layers, heads): the model's own, 1."""
        return np.ones(densities.shape)

    def check(self, model: ModelSignature, method: str) -> None:
        """Raises ProfileError if it is of another model's shape, or says nothing of the method, naming both."""
        if self.model != model:
            raise ProfileError(
                f"The {self.title} is of a model of {self.model}; this one has {model}. Choose another, or "
                "measure this model with Sparsity Profile."
            )
        if method not in BY_STRENGTH:
            raise ProfileError(
                f"The {self.title} says how many of the strongest keys a head needs, and nothing of the method "
                f"{method!r}, which chooses otherwise. It serves {' and '.join(BY_STRENGTH)}: choose one of these, or "
                "no such profile."
            )

    @property
    def label(self) -> str:
        """What it is, in a few words."""
        return f"densities of {self.name or 'an unnamed model'}"

    @property
    def title(self) -> str:
        """What it is called in a sentence."""
        return f"profile of {self.name or 'an unnamed model'}"

    def __str__(self) -> str:
        return f"DensityProfile({self.name or 'unnamed'}, {self.mass:.0%} of the mass, {self.model})"

    def to_json(self) -> str:
        head = self.head() | {"name": self.name, "model": self.model.as_json()}
        head |= {"mass": self.mass, "measured": self.measured}
        lines = [f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in head.items()]
        rows = ",\n".join(f"  {json.dumps(row)}" for row in self.needed)
        return f'{{\n{"".join(lines)} "needed": [\n{rows}\n ]\n}}\n'

    @classmethod
    def from_fields(cls, found: dict[str, Any]) -> DensityProfile:
        if not isinstance(found["name"], str):
            raise ProfileError(f"its name is {found['name']!r}, and must be text")
        return cls(
            model=ModelSignature.from_json(found["model"]),
            needed=tuple(tuple(map(number, layer)) for layer in found["needed"]),
            mass=number(found["mass"]),
            name=found["name"],
            measured=plain_fields(found["measured"]),
        )

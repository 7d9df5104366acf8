"""A mask of layers x heads, as text.

A term of a layer mask (`selection`) may name heads behind an "@", in the same grammar; else it means all of them:

    all                every head of every layer
    5@0                head 0 of layer 5
    3-7@0-2:0.5        heads 0 to 2 of layers 3 to 7, half strength
    all, 5@1:0         everything but head 1 of layer 5

Heads have no commas of their own: write "5@0, 5@3". Of terms that name the same head the last one counts. Any layer
mask is a head mask.

File format, version 1: JSON, "format": "vdit head mask", "version": 1, the "text", and "layers" and "heads" of the
model that the mask was made for, or null.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .call import ModelSignature
from .json_fields import whole
from .json_file import JsonFile
from .selection import Kinds, LayerMask, SelectionError, Term, split_strength, terms_of

_ALL = Term("all", word="all")


@dataclass(frozen=True)
class HeadMask(JsonFile):
    """A strength from 0 (off) to 1 (full) per layer and head.

    layers, heads: of the model that the mask was made for, where they are known; another model is refused.

    Raises:
        SelectionError: at once if the text cannot be read or a strength is not within 0..1.
    """

    format, version, thing = "vdit head mask", 1, "head mask"
    remedy, error = "Save the mask again", SelectionError
    largest = 2**20  # a strength of its own for each of 40 x 40 heads takes 30,000

    text: str = "all"
    layers: int | None = None
    heads: int | None = None
    _parsed: tuple[tuple[Term, Term, float], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parsed = []
        for term in terms_of(self.text):
            indices, strength = split_strength(term)
            layers, at, heads = (part.strip() for part in indices.partition("@"))
            parsed.append((Term.parse(layers), Term.parse(heads) if at else _ALL, strength))
            if parsed[-1][1].kind is not None:
                raise SelectionError(f"{heads!r} in {term!r} names a kind of blocks; heads have no kinds.")
        object.__setattr__(self, "_parsed", tuple(parsed))

    @classmethod
    def of_layers(cls, mask: LayerMask) -> HeadMask:
        """The same strengths, for all heads of each layer."""
        return cls(mask.text, layers=mask.made_for)

    @classmethod
    def of(
        cls, strengths: Mapping[tuple[int, int], float], layers: int | None = None, heads: int | None = None
    ) -> HeadMask:
        """The mask with these strengths, to six decimals, by (layer, head); all others are 0.

        Raises:
            SelectionError: if a strength is not within 0..1.
        """
        terms = [
            f"{layer}@{head}" if s == 1 else f"{layer}@{head}:{s:.6f}".rstrip("0")
            for (layer, head), s in sorted(strengths.items())
            if s != 0
        ]
        return cls(", ".join(terms) or "none", layers, heads)

    def scaled(self, factor: float) -> HeadMask:
        """The mask with every strength multiplied by a factor from 0 to 1."""
        terms = (f"{layers.text}@{heads.text}:{s * factor:.6f}" for layers, heads, s in self._parsed)
        return HeadMask(", ".join(terms), self.layers, self.heads)

    @property
    def names_kinds(self) -> bool:
        """Whether it fits only a model whose kinds of blocks it names."""
        return any(layers.kind for layers, _, _ in self._parsed)

    def resolve(self, layers: int, heads: int, kinds: Kinds = ()) -> dict[int, tuple[float, ...]]:
        """The strength of every head, of each layer in which any has one above 0, for a model of this shape.

        Raises:
            SelectionError: if a layer or head is out of range, a kind is not in the model, or the mask was made for a
                model of another shape.
        """
        for made_for, own, what in ((self.layers, layers, "layers"), (self.heads, heads, "heads")):
            if made_for not in (None, own):
                raise SelectionError(
                    f"The mask {self.text!r} was made for a model of {made_for} {what}; this one has {own}. "
                    "Make a new mask for this model."
                )
        strengths = [[0.0] * heads for _ in range(layers)]
        for of_layers, of_heads, strength in self._parsed:
            chosen = of_heads.resolve(heads, "head")
            for layer in of_layers.resolve(layers, "layer", kinds):
                for head in chosen:
                    strengths[layer][head] = strength
        return {layer: tuple(row) for layer, row in enumerate(strengths) if any(row)}

    def __str__(self) -> str:
        return self.text

    def to_json(self) -> str:
        found = self.head() | {"text": self.text, "layers": self.layers, "heads": self.heads}
        return json.dumps(found, indent=1) + "\n"

    @classmethod
    def from_fields(cls, found: dict[str, Any]) -> HeadMask:
        return cls(found["text"], _count(found["layers"]), _count(found["heads"]))


def _count(value: Any) -> int | None:
    return None if value is None else whole(value)


def head_strengths(mask: LayerMask | HeadMask, model: ModelSignature) -> dict[int, tuple[float, ...]]:
    """The strength of every head, of each layer in which any has one above 0; a layer mask's is that of all its heads.

    Raises:
        SelectionError: as `HeadMask.resolve` and `LayerMask.resolve`.
    """
    if isinstance(mask, HeadMask):
        return mask.resolve(model.layers, model.heads, model.kinds)
    return {layer: (strength,) * model.heads for layer, strength in mask.resolve(model.layers, model.kinds).items()}

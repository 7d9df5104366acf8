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
from pathlib import Path
from typing import Any

from .atomic import whole_file
from .call import ModelSignature
from .json_fields import UNREADABLE, whole
from .selection import Kinds, LayerMask, SelectionError, Term, split_strength, terms_of

FORMAT, VERSION = "vdit head mask", 1
_ALL = Term("all", word="all")
_LARGEST = 2**20  # bytes of a file; a strength of its own for each of 40 x 40 heads takes 30,000


@dataclass(frozen=True)
class HeadMask:
    """A strength from 0 (off) to 1 (full) per layer and head.

    layers, heads: of the model that the mask was made for, where they are known; another model is refused.

    Raises:
        SelectionError: at once if the text cannot be read or a strength is not within 0..1.
    """

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
        found = {"format": FORMAT, "version": VERSION, "text": self.text, "layers": self.layers, "heads": self.heads}
        return json.dumps(found, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, name: str = "this text") -> HeadMask:
        """Raises SelectionError naming the file and what is wrong with it."""
        try:
            found = json.loads(text)
            if not isinstance(found, dict) or found.get("format") != FORMAT:
                raise SelectionError("it is JSON of another kind")
            if found.get("version") != VERSION:
                raise SelectionError(f"it has version {found.get('version')!r}; this pack reads version {VERSION}")
            return cls(found["text"], _count(found["layers"]), _count(found["heads"]))
        except UNREADABLE as error:
            what = f"{type(error).__name__}: {error}" if not isinstance(error, SelectionError) else str(error)
            raise SelectionError(f"{name} is not a whole head mask: {what.rstrip('.')}. Save the mask again.") from None

    def save(self, path: Path) -> None:
        """Write one whole file, or leave nothing behind. Raises OSError as the disk says."""
        with whole_file(Path(path)) as part:
            part.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> HeadMask:
        """Raises SelectionError, or FileNotFoundError if there is no file."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"There is no head mask at {path}.")
        if path.stat().st_size > _LARGEST:
            raise SelectionError(
                f"{path} is not a head mask: it is larger than {_LARGEST:,} bytes. Choose another file."
            )
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            text = ""
        return cls.from_json(text, str(path))


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

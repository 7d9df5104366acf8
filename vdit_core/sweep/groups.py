"""Groups of heads: what one row of a sweep takes from the source, and what a search adds piece by piece."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..call import ModelSignature
from ..head_mask import HeadMask, head_strengths
from ..selection import LayerMask, SelectionError


@dataclass(frozen=True)
class HeadGroup:
    """Some heads of a model, under a label.

    mask: made for one model (its `layers` and `heads` are known), one term a head: groups of the same heads and
    strengths have equal masks.
    """

    label: str
    mask: HeadMask

    @property
    def name(self) -> str:
        """A file's stem, the same for the same mask whatever its label."""
        return f"mask-{hashlib.sha256(self.mask.text.encode()).hexdigest()[:16]}"


def each_head(mask: LayerMask | HeadMask, model: ModelSignature) -> tuple[HeadGroup, ...]:
    """One group for each head that the mask gives a strength.

    Raises:
        SelectionError: if the mask does not fit the model, or has no head.
    """
    heads = [HeadMask.of({place: s}, model.layers, model.heads) for place, s in _by_head(mask, model).items()]
    return _some((HeadGroup(one.text, one) for one in heads), f"the mask {mask.text!r}")


def each_layer(mask: LayerMask | HeadMask, model: ModelSignature) -> tuple[HeadGroup, ...]:
    """One group for each layer: the heads of it that the mask gives a strength.

    Raises:
        SelectionError: if the mask does not fit the model, or has no head.
    """
    found = []
    for layer, strengths in head_strengths(mask, model).items():
        heads = [head for head, strength in enumerate(strengths) if strength]
        some = "" if len(heads) == model.heads else f" @ {', '.join(map(str, heads))}"
        of_layer = {(layer, head): strengths[head] for head in heads}
        found.append(HeadGroup(f"layer {layer}{some}", HeadMask.of(of_layer, model.layers, model.heads)))
    return _some(found, f"the mask {mask.text!r}")


def of_text(text: str, model: ModelSignature) -> tuple[HeadGroup, ...]:
    """One group a line, each a head mask; empty lines are left out.

    Raises:
        SelectionError: naming the line that cannot be read, does not fit the model, has no head, or repeats another.
    """
    found: dict[str, HeadGroup] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        try:
            mask = HeadMask.of(_by_head(HeadMask(line), model), model.layers, model.heads)
        except SelectionError as error:
            raise SelectionError(f"The head group {line!r} cannot be used: {error}") from None
        if mask.text == "none":
            raise SelectionError(f"The head group {line!r} has no head above strength 0. Name one, or remove the line.")
        if mask.text in found:
            raise SelectionError(
                f"The head groups {found[mask.text].label!r} and {line!r} are the same heads. Remove one of them."
            )
        found[mask.text] = HeadGroup(line, mask)
    return _some(found.values(), "the text")


def union(masks: Sequence[HeadMask]) -> HeadMask:
    """All heads of one or more groups' masks; of a head that is in several, the greatest strength.

    Raises:
        SelectionError: if they were made for models of other shapes.
    """
    layers, heads = masks[0].layers, masks[0].heads
    assert layers is not None
    assert heads is not None  # as HeadGroup says
    together: dict[tuple[int, int], float] = {}
    for mask in masks:
        for place, strength in _by_head(mask, ModelSignature(layers, heads, 0)).items():
            together[place] = max(strength, together.get(place, 0.0))
    return HeadMask.of(together, layers, heads)


def _by_head(mask: LayerMask | HeadMask, model: ModelSignature) -> dict[tuple[int, int], float]:
    """The strengths above 0, by (layer, head)."""
    of_layers = head_strengths(mask, model)
    return {(layer, head): s for layer, row in of_layers.items() for head, s in enumerate(row) if s}


def _some(groups: Iterable[HeadGroup], source: str) -> tuple[HeadGroup, ...]:
    found = tuple(groups)
    if not found:
        raise SelectionError(f"There is no head group: {source} names no head. Name at least one, for example 5@0.")
    return found


#: Modes of a sweep whose rows are head groups of a mask: one head each, or one layer's heads each.
OF_MASK: dict[str, Callable[[LayerMask | HeadMask, ModelSignature], tuple[HeadGroup, ...]]] = {
    "each head": each_head,
    "heads of each layer": each_layer,
}
#: The mode whose rows are head groups as text.
GROUPS = "groups"
#: All modes whose rows are head groups.
HEAD_MODES = (*OF_MASK, GROUPS)


def groups(
    mode: str, model: ModelSignature, mask: LayerMask | HeadMask | None = None, text: str = ""
) -> tuple[HeadGroup, ...]:
    """The rows of one of HEAD_MODES. mask: by default every head. text: as `of_text`, for "groups".

    Raises:
        SelectionError: as the mode's function.
    """
    if mode in OF_MASK:
        return OF_MASK[mode](HeadMask() if mask is None else mask, model)
    if not text.strip():
        raise SelectionError('The mode "groups" needs head groups: write one a line, for example "5@0, 5@3".')
    return of_text(text, model)

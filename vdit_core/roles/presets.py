"""Masks of heads by what they keep of a source, chosen by role."""

from __future__ import annotations

from dataclasses import dataclass

from ..head_mask import HeadMask
from .classify import FIRST, LAYOUT, MIXED, MOTION, SINK, TEXT, TRACKER, Roles
from .observer import RolesError

#: The part of a layer's heads that a camera takes at most: the others are free to draw what the prompt says.
OF_LAYER = 0.5


@dataclass(frozen=True)
class Preset:
    """roles: whose heads are chosen. meaning: for people. sparing: whether at most OF_LAYER of a layer's heads are
    chosen, those first whose displacement differs most between videos."""

    roles: tuple[str, ...]
    meaning: str
    sparing: bool = False


#: By name. What each keeps of a source in the demo model is measured in docs/head_roles.md.
PRESETS = {
    "camera only": Preset(
        (MOTION,), "the heads that move most with the video, at most half of a layer's", sparing=True
    ),
    "motion only": Preset((MOTION, TRACKER), "all heads that look along time"),
    "layout only": Preset((LAYOUT,), "the heads that look around themselves in their own frame"),
    "all but identity": Preset((MOTION, TRACKER, FIRST, SINK, TEXT, MIXED), "all heads but those of the layout"),
}


def heads_of(name: str, roles: Roles) -> list[tuple[int, int]]:
    """The heads of a preset, as (layer, head), rising; none where no head has its roles.

    Raises:
        RolesError: naming an unknown preset and the known ones.
    """
    if name not in PRESETS:
        raise RolesError(f"There is no preset {name!r}; the presets are {', '.join(PRESETS)}.")
    found = roles.having(*PRESETS[name].roles)
    if PRESETS[name].sparing:
        most = max(1, int(OF_LAYER * roles.table.run.model.heads))
        of_layers = [[head for head in found if head[0] == layer] for layer in roles.table.layers]
        found = [head for of in of_layers for head in sorted(sorted(of, key=roles.sway, reverse=True)[:most])]
    return found


def preset_mask(name: str, roles: Roles, strength: float = 1.0) -> HeadMask:
    """The mask of a preset's heads, for the model that the roles are of; "none" where no head has its roles.

    Raises:
        RolesError: naming an unknown preset and the known ones. SelectionError: if the strength is not within 0..1.
    """
    model = roles.table.run.model
    return HeadMask.of(dict.fromkeys(heads_of(name, roles), strength), model.layers, model.heads)

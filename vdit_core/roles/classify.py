"""A head's role, from its figures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .observer import HeadTable, ObservedHeads, table

MOTION, TRACKER, LAYOUT, FIRST, SINK, TEXT, MIXED = ROLES = (
    "motion", "tracker", "layout", "first frame", "sink", "text", "mixed",
)  # fmt: skip
#: What a head of each role does, for people.
MEANING = {
    MOTION: "looks along time, at places that move as the video does",
    TRACKER: "looks along time, always at its own place",
    LAYOUT: "looks close around itself in its own frame",
    FIRST: "looks at the first frame",
    SINK: "looks at a few tokens that all others look at, too",
    TEXT: "looks at text beside the video",
    MIXED: "none of these stands out",
}

#: A head has a role if at least this part of its attention, of what a map without preference leaves over, serves it.
ROLE = 0.25
#: From so many tokens a frame on, attention along time moves with the video. Of the demo model's heads those that look
#: at the same place in any video stay below 0.01; those whose displacement follows the camera's reach 0.03 and more.
MOVING = 0.02
#: Sinks in the first frame are sinks if they take this part of what that frame gets.
_OF_FIRST = 0.5


@dataclass(frozen=True)
class Roles:
    """Heads and their roles.

    table: the figures. scores: by role, but MIXED, (layers, heads), 1 for a head all of whose attention serves the
    role, 0 or less for one that does no more for it than a map without preference. roles: the name of each head's role,
    by (layer, head).
    """

    table: HeadTable
    scores: dict[str, Tensor]
    roles: dict[tuple[int, int], str]

    def having(self, *roles: str) -> list[tuple[int, int]]:
        """The heads that have one of these roles, as (layer, head)."""
        return [head for head, role in self.roles.items() if role in roles]

    def place(self, head: tuple[int, int]) -> tuple[int, int]:
        """Where the figures of a (layer, head) are."""
        return self.table.layers.index(head[0]), self.table.heads.index(head[1])

    def speed(self, head: tuple[int, int]) -> float:
        """In tokens a frame."""
        return float(self.table.speed[self.place(head)])

    def sway(self, head: tuple[int, int]) -> float:
        """How much its displacement differs between videos, in tokens a frame."""
        return float(self.table.sway[self.place(head)])

    def score(self, head: tuple[int, int]) -> float:
        """Of a head's own role; of a mixed one the best score."""
        of = {role: float(values[self.place(head)]) for role, values in self.scores.items()}
        return of.get(self.roles[head], max(of.values()))


def head_roles(*runs: ObservedHeads) -> Roles:
    """The role of each head, of one or several runs of a model: what a `RoleObserver` has as its result.

    Raises:
        RolesError: if there is no call, or the runs are of different models, heads, layers or sizes.
    """
    return classify(table(runs))


def classify(of: HeadTable) -> Roles:
    """The role of each head.

    With s the share of a head's attention that serves a role and u that of a map without preference, its score is
    (s - u) / (1 - u). Shares (`HeadFigures`): layout `near`, first frame `first`, sink `sinks`, text `text`; along time
    `path` is a motion's where the head's `speed` reaches MOVING, `place` a tracker's where it does not. The highest
    score from ROLE on is the head's role. A sink in the first frame serves that frame, too; it counts as a sink as long
    as it takes half of what the frame gets.
    """
    found, level = of.figures, of.level
    moving = of.speed >= MOVING

    def score(name: str) -> Tensor:
        share, even = getattr(found, name).double(), getattr(level, name).double()
        return (share - even) / (1 - even).clamp(min=1e-9)

    none = torch.zeros_like(of.speed, dtype=torch.float64)
    scores = {
        MOTION: torch.where(moving, score("path"), none),
        TRACKER: torch.where(moving, none, score("place")),
        LAYOUT: score("near"),
        FIRST: score("first"),
        SINK: score("sinks"),
        TEXT: score("text"),
    }
    roles = {}
    for i, layer in enumerate(of.layers):
        for j, head in enumerate(of.heads):
            own = {role: float(values[i, j]) for role, values in scores.items()}
            role = max(own, key=own.__getitem__)
            if role == FIRST and float(found.sinks[i, j]) >= _OF_FIRST * float(found.first[i, j]):
                role = SINK
            roles[layer, head] = role if own[role] >= ROLE else MIXED
    return Roles(of, scores, roles)

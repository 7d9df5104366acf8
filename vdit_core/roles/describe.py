"""Heads and their roles as a table and as JSON."""

from __future__ import annotations

from typing import Any

from ..reporting.tables import markdown
from .classify import MEANING, Roles
from .presets import PRESETS, heads_of, preset_mask

#: The figures of a table's columns, as `HeadFigures` names them, and their heads.
_COLUMNS = {
    "near": "around itself",
    "place": "own place, other frames",
    "first": "first frame",
    "sinks": "strongest 1 % of keys",
    "entropy": "entropy",
}


def as_json(found: Roles) -> dict[str, Any]:
    """Each head's role, score and figures, those of a map without preference, and the presets' masks."""
    table = found.table
    heads = []
    for head, role in found.roles.items():
        at = found.place(head)
        figures = {
            name: [round(x, 4) for x in value[at].tolist()] if value[at].dim() else round(float(value[at]), 4)
            for name, value in table.figures.items()
        }
        heads.append(
            {"layer": head[0], "head": head[1], "role": role, "score": round(found.score(head), 4),
             "speed": round(found.speed(head), 4), "sway": round(found.sway(head), 4), **figures}
        )  # fmt: skip
    level = {name: round(float(value), 4) for name, value in table.level.items() if name != "displacement"}
    return {
        "grid": str(table.run.grid),
        "calls": table.calls,
        "videos": len(table.moved),
        "uniform": level,
        "heads": heads,
        "presets": {name: str(preset_mask(name, found)) for name in PRESETS},
    }


def as_text(found: Roles) -> str:
    """A table (Markdown) with a row for each head, and below it each preset's mask."""
    table = found.table
    rows = []
    for head, role in found.roles.items():
        at = found.place(head)
        down, right = table.figures.displacement[at].tolist()
        shares = [f"{float(getattr(table.figures, name)[at]):.0%}" for name in _COLUMNS]
        rows.append(
            [f"{head[0]}@{head[1]}", role, f"{found.score(head):.2f}", *shares,
             f"{found.speed(head):.2f} ({_signed(down)}, {_signed(right)})"]
        )  # fmt: skip
    rows.append(["(uniform)", "", "0", *(f"{float(getattr(table.level, name)):.0%}" for name in _COLUMNS), "0"])
    text = markdown(["head", "role", "score", *_COLUMNS.values(), "tokens a frame (down, right)"], rows, aligned=True)
    videos = "videos" if len(table.moved) > 1 else "video"
    there = [role for role in MEANING if role in found.roles.values()]
    return "\n".join(
        [
            text,
            "",
            *(f"- {role}: {MEANING[role]}" for role in there),
            "",
            *(f"- {name} ({PRESETS[name].meaning}): {_mask(name, found)}" for name in PRESETS),
            "",
            f"{table.calls} calls, {len(table.moved)} {videos}, {table.run.grid}.",
        ]
    )


def _mask(name: str, found: Roles) -> str:
    return str(preset_mask(name, found)) if heads_of(name, found) else "no head has this role"


def _signed(value: float) -> str:
    """Two digits with a sign, never -0.00."""
    return f"{round(value, 2) + 0:+.2f}"

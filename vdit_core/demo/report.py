"""Writes what the main job found: a video and a contact sheet per pair, `report.json`, and a page with the table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..reporting.files import write_json, write_page
from ..reporting.labelled import contact_sheet, side_by_side
from ..reporting.tables import markdown
from ..reporting.video import write_mp4
from .pairs import DISTANCES, EDITS, LIKENESS, PairResult


def write(results: Sequence[PairResult], seconds: float, device: str, folder: Path) -> dict[str, Any]:
    """Write everything into a folder; returns the report."""
    folder.mkdir(parents=True, exist_ok=True)
    for result in results:
        clips = labelled(result)
        write_mp4(side_by_side(clips), folder / f"{result.pair.name}.mp4")
        contact_sheet(clips).save(folder / f"{result.pair.name}.png")
    report = as_json(results, seconds, device)
    write_json(folder / "report.json", report)
    template = Path(__file__).with_name("report.html")
    write_page(folder / "index.html", template, report=report, rows=rows(report), columns=columns())
    return report


def labelled(result: PairResult) -> dict[str, Any]:
    """The first seed's three clips under their labels."""
    seed = result.seeds[0]
    return {
        f"source: {result.pair.source}": result.source[0],
        f"same seed ({seed}): {result.pair.target}": result.plain[0],
        "the same + the source's attention maps": result.transfer[0],
    }


def as_json(results: Sequence[PairResult], seconds: float, device: str) -> dict[str, Any]:
    """What `report.json` holds."""
    pairs = [
        {"name": r.pair.name, "source": str(r.pair.source), "target": str(r.pair.target), "seeds": list(r.seeds)}
        | {kind: {k: round(v, 4) for k, v in r.scores[kind].items()} for kind in ("plain", "transfer", "other_seed")}
        for r in results
    ]
    return {
        "pairs": pairs,
        "replaced_calls": sum(r.report.replaced for r in results),
        "expected_calls": sum(r.report.expected for r in results),
        "seconds": round(seconds, 1),
        "device": device,
    }


def columns() -> tuple[str, ...]:
    """The table's heads, in order."""
    units = [f"{name} (px)" for name in DISTANCES]
    return ("pair", "", *units, "SSIM", "edges", "edit right")


def rows(report: dict[str, Any]) -> list[list[str]]:
    """The table's cells: three rows a pair."""
    table = []
    for pair in report["pairs"]:
        for kind in ("plain", "transfer", "other_seed"):
            score = pair[kind]
            seen = ", ".join(f"{k} {score[k]:.0%}" for k in EDITS if k in score)
            numbers = [f"{score[k]:.1f}" for k in DISTANCES] + [f"{score[k]:.3f}" for k in LIKENESS]
            table.append([pair["name"] if kind == "plain" else "", kind.replace("_", " "), *numbers, seen])
    return table


def as_text(report: dict[str, Any]) -> str:
    """The table for a terminal or a README (Markdown)."""
    return markdown(columns(), rows(report))

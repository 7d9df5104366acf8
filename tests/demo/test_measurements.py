"""The figures of the demo model in docs/measurements.md are those of the reports in docs/, and keep their bars."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from vdit_core.demo.pairs import DISTANCES, LIKENESS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8")
EDIT = {"red": "colour", "winter": "season", "truck": "object", "dog": "object"}


def report(seeds: int) -> dict[str, Any]:
    """What `vdit demo --pairs all --seeds N --first-seed 0` wrote: 64 seeds on a GPU, 16 on two CPU cores."""
    file = ROOT / "docs" / f"demo_report_{seeds}.json"
    if not file.is_file():
        pytest.skip(
            f"no {file.name}: copy out/report.json of `vdit demo --pairs all --seeds {seeds} --first-seed 0` there"
        )
    found = json.loads(file.read_text())
    assert all(pair["seeds"] == list(range(seeds)) for pair in found["pairs"])
    assert found["replaced_calls"] == found["expected_calls"] == -(-seeds // 8) * len(found["pairs"]) * 9 * 30 * 2
    return found


def rows() -> list[list[str]]:
    """The cells of the page's table, without emphasis."""
    table = PAGE[PAGE.index("| pair | | x px |") :]
    lines = table[: table.index("\n\n")].splitlines()[2:]
    return [[cell.strip().strip("*") for cell in line.strip("|").split("|")] for line in lines]


def cells(scores: dict[str, float]) -> list[str]:
    likeness = [f"{scores[name]:.3f}".removeprefix("0") for name in LIKENESS]
    return [f"{scores[name]:.1f}" for name in DISTANCES] + likeness


def test_the_table_is_the_reports():
    found, lines = report(64), iter(rows())
    for pair in found["pairs"]:
        for kind in ("plain", "transfer"):
            line = next(lines)
            assert line[1] == kind
            assert line[2:9] == cells(pair[kind]), (pair["name"], kind)
            assert line[9].startswith(f"{pair[kind][EDIT[pair['name']]]:.0%}".replace("%", " %"))
    assert next(lines)[1:9] == ["other seed", *cells(found["pairs"][0]["other_seed"])]
    assert f"{found['replaced_calls']:,} of {found['expected_calls']:,} attention calls were replaced" in PAGE


def test_the_bars():
    """On the first sixteen seeds, as the page says in words."""
    left = {}
    for pair in report(16)["pairs"]:
        plain, transfer = pair["plain"], pair["transfer"]
        left[pair["name"]] = {name: transfer[name] / plain[name] for name in DISTANCES}
        if pair["name"] in ("red", "winter"):
            assert transfer[EDIT[pair["name"]]] >= 0.95
    assert left["red"]["x"] <= 0.5
    assert left["red"]["pan"] <= 0.5
    assert left["winter"]["x"] <= 0.6
    assert left["truck"]["x"] <= 0.7
    share = r"(\d+) %"
    told = re.search(rf"leaves {share} .*\({share} of its pan error\), {share} for winter, {share} for", PAGE)
    assert told is not None
    shares = left["red"]["x"], left["red"]["pan"], left["winter"]["x"], left["truck"]["x"]
    assert [f"{share:.0%}" for share in shares] == [f"{share}%" for share in told.groups()]

"""docs/limits.md says what the budget computes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("limits", ROOT / "benchmarks" / "limits.py")
limits = importlib.util.module_from_spec(spec)
spec.loader.exec_module(limits)


@pytest.mark.parametrize("table", ["calls", "recordings", "fitting", "working"])
def test_the_pages_tables_are_computed(table):
    page = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
    assert "\n".join(getattr(limits, table)()) in page


def test_tokens_are_the_papers():
    assert limits.grid(832, 480, 81).tokens == 32_760
    assert limits.grid(1280, 720, 81).tokens == 75_600

"""docs/real_wan.md says what the profiles that ship say, and its pictures are there."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from PIL import Image

from vdit_core.sparse import presets

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "real_wan.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("real_wan", DOCS.parent / "tools" / "real_wan.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_its_tables_are_computed(script):
    for table in script.tables():
        assert table in PAGE, "run tools/real_wan.py and put its tables into the page"


def test_its_pictures_show_every_profile(script):
    for name in presets.NAMES:
        picture = script.picture(name)
        assert f"(images/{picture.name})" in PAGE
        assert picture.stat().st_size < 200_000
        with Image.open(picture) as shown:
            assert min(shown.size) > 500


def test_figures_in_its_sentences(script):
    found = json.loads(script.STEPS.read_text())
    whole = found["between"]["sparsity_wan_14B_t2v.csv ~ sparsity_wan22_A14B_t2v.csv"]
    assert f"that of Wan2.1 T2V: {whole:.3f}." in PAGE
    times = {file: figures["largest_change"]["times"] for file, figures in script._figures()}
    assert [round(times[f"sparsity_wan22_A14B_{kind}.csv"]) for kind in ("i2v", "t2v")] == [17, 19]
    assert max(value for file, value in times.items() if "wan22" not in file) < 1.35
    assert max(figures["explained"]["step"] for _, figures in script._figures()) < 0.05


def level(step: int, shift: float, steps: int = 40) -> float:
    even = 1 - step / steps
    return shift * even / (1 + (shift - 1) * even)


@pytest.mark.parametrize(("kind", "boundary", "high"), [("T2V", 0.875, 12), ("I2V", 0.9, 10)])
def test_the_split_goes_with_the_noise_schedule(kind, boundary, high):
    """As the page has it: shifts from 2.66 on, below 3."""
    steps = str(presets.load(f"Wan2.2 A14B {kind} high noise").measured["steps"])
    assert steps == f"1-{high} of 40"
    for shift in (2.66, 2.8, 2.99):
        assert sum(level(step, shift) >= boundary for step in range(40)) == high
    assert level(high, 3.0) == pytest.approx(boundary, abs=1e-12)
    own = {"T2V": (12.0, 26), "I2V": (5.0, 15)}[kind]
    assert sum(level(step, own[0]) >= boundary for step in range(40)) == own[1]

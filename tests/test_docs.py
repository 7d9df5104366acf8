"""The map of docs/architecture fits the tree, links lead somewhere, and retired words do not come back."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ARCHITECTURE = ROOT / "docs" / "architecture"
MAP = (ARCHITECTURE / "README.md").read_text(encoding="utf-8")
TRACKED = [
    path
    for name in subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    if name and (path := ROOT / name).is_file()
]
PAGES = [path for path in TRACKED if path.suffix == ".md"]

#: Words of this pack's own that field terms have replaced, and turns that are hard to read.
RETIRED = (
    r"outbox|shelf|shelves|read-ahead|ReadAhead|BlockLists|block lists?\b",
    r"\bsteadiness\b|\bevenness\b",
    r"top blocks|exact share|exact mass|\bEndToEnd\b|\bend_to_end\b|\bSensitivity\(|LEAST_|_MOST_",
    r"\bRace\(|\brace\.run|\bread(s|ing)? ahead\b|[Tt]op blocks|\bruler\b|vdit_core\.(inspect|store|record|gpu)\b",
    r"\bthe very (?!end\b)|keeps to no|told of\b|cannot be meant\b|as it is meant\b|\bwhereof\b|\btherein\b",
)
#: Where they may stand: what was, and what reads it.
HISTORY = ("CHANGELOG.md", "tests/test_docs.py", "web/renamed.json", "workflows_0.1.0-dev", "sparse/methods.py",
           "test_renamed.py", "test_allocation.py")  # fmt: skip
PICTURES = (".png", ".jpg", ".webp", ".mp4", ".safetensors", ".ico")


def test_the_map_names_every_part_of_the_core():
    core = ROOT / "vdit_core"
    parts = {f"{path.name}/" for path in core.iterdir() if (path / "__init__.py").exists()}
    parts |= {path.name for path in core.glob("*.py") if path.name != "__init__.py"}
    table = MAP[MAP.index("| `vdit_core/` |") : MAP.index("| beside it |")]
    rows = re.findall(r"^\| (.+?) \|", table, re.M)[1:]
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert named == parts


def test_the_map_names_every_folder_beside_it():
    inside = [path.relative_to(ROOT).parts for path in TRACKED]
    folders = {f"{parts[0]}/" for parts in inside if len(parts) > 1}
    table = MAP[MAP.index("| beside it |") : MAP.index("## Where something new goes")]
    named = set(re.findall(r"^\| `([a-z_]+/)` \|", table, re.M))
    assert named == {folder for folder in folders if not folder.startswith(".")} - {"vdit_core/"}


def test_paths_in_the_map_exist():
    places = [ROOT / place for place in (".", "vdit_core", "vdit_core/hosts", "vdit_core/recording")]
    for name in re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.(?:py|json))?)`", MAP):
        assert name == "models/" or any((place / name).exists() for place in places), name


def test_every_decision_is_in_the_index():
    files = {path.name for path in (ARCHITECTURE / "decisions").glob("*.md")}
    assert set(re.findall(r"\(decisions/([^)]+)\)", MAP)) == files
    for name in files:
        text = (ARCHITECTURE / "decisions" / name).read_text(encoding="utf-8")
        assert re.match(rf"# {name[:3]}\. .+\n\nStatus: \w+", text), name
        assert len(text.splitlines()) <= 25, name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not re.match(r"https?:|#|mailto:", target):
            assert (page.parent / target.partition("#")[0].replace("%20", " ")).exists(), target


def test_retired_words_do_not_come_back():
    found = []
    for path in TRACKED:
        name = str(path.relative_to(ROOT))
        if any(part in name for part in HISTORY) or path.suffix in (
            ".png",
            ".jpg",
            ".webp",
            ".mp4",
            ".safetensors",
            ".ico",
        ):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), start=1):
            if match := re.search("|".join(RETIRED), line):
                found.append(f"{name}:{number}: {match[0]}")
    assert found == []


def test_no_file_of_code_is_long():
    long = {
        path: len(path.read_text(encoding="utf-8").splitlines())
        for path in TRACKED
        if path.suffix in (".py", ".js", ".mjs")
    }
    assert {str(path.relative_to(ROOT)): lines for path, lines in long.items() if lines > 400} == {}

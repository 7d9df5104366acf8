"""The map fits the tree, the site has every page, links lead somewhere, and retired words do not come back."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

import vdit_core

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
ARCHITECTURE = DOCS / "architecture"
SITE = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
REPOSITORY = "https://github.com/vdit-attention/comfyui-vdit-attention/blob/main/"
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


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


def test_the_readme_names_every_example_once_for_its_model():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme[readme.index("| model | example |") : readme.index("Examples 3, 14")]
    rows = re.findall(r"^\| .+ \| ([\d,; ]+) \|$", table, re.M)
    numbers = {int(file.stem.split()[0]) for file in (ROOT / "example_workflows").glob("*.json")}
    assert sorted(int(n) for row in rows for n in re.findall(r"\d+", row)) == sorted(numbers)


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
    """Links and pictures, of Markdown and of HTML; a link to a heading leads to one."""
    for link in links(page):
        if link.startswith(REPOSITORY):
            base, target = ROOT, link.removeprefix(REPOSITORY)
        elif re.match(r"[a-z]+:", link):
            continue
        else:
            base, target = page.parent, link
        name, _, anchor = target.partition("#")
        leads_to = base / unquote(name) if name else page
        assert leads_to.exists(), link
        assert not anchor or anchor in anchors(leads_to), link


def test_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        '# What? A `b`, c\n[x](a.md#y) ![x](<b c.png>) <img alt="" src="d.webp"> [![x](e.png)](f.md)\n'
        "```\n# no heading\n[x](no_link)\n```\n## Twice\n## Twice\n"
    )
    assert set(links(page)) == {"a.md#y", "b c.png", "d.webp", "e.png", "f.md"}
    assert anchors(page) == {"what-a-b-c", "twice", "twice-1"}


def links(page: Path) -> list[str]:
    found = re.findall(r"""\]\(<([^>\n]+)>\)|\]\(([^)\s<]+)\)|(?:src|href)="([^"]+)\"""", prose(page))
    return [link for one in found for link in one if link]


@cache
def anchors(page: Path) -> set[str]:
    """What links to the headings of a page may be called, on GitHub and on the site."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.+?) *$", prose(page), re.M):
        words = re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\s-]", "", words).replace(" ", "-")
        before = sum(re.sub(r"-\d+$", "", one) == name for one in found)
        found.append(f"{name}-{before}" if before else name)
    return set(found)


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def test_every_page_is_in_the_nav():
    named = set(re.findall(r"(?:- |: )(\S+(?:\.md|/))$", SITE[SITE.index("\nnav:") :], re.M))
    pages = {path.relative_to(DOCS) for path in PAGES if path.is_relative_to(DOCS)}
    assert [str(page) for page in pages if str(page) not in named and f"{page.parent}/" not in named] == []
    assert {name for name in named if not (DOCS / name).exists()} == {"nodes/"}, "help pages come from web/docs"


def test_the_page_of_nodes_links_to_every_help_page():
    linked = {Path(link).name for link in links(DOCS / "nodes.md") if link.startswith("../web/docs/")}
    assert linked == {path.name for path in (ROOT / "web" / "docs").glob("*.md")}


def test_the_python_api_has_every_public_name():
    named = re.findall(r"^::: (?:\w+\.)+(\w+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.M)
    assert sorted(named) == sorted(vdit_core.__all__)


def test_the_site_builds(tmp_path):
    missing = [name for name in ("mkdocs", "material", "mkdocstrings") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: `make docs` installs what the site is built with")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    help_page = (tmp_path / "nodes" / "VDiT_HeadMask" / "index.html").read_text(encoding="utf-8")
    assert 'href="../../selections/"' in help_page, "a link to the repository's page is one of the site"
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".py"]


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

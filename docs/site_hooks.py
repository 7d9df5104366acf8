"""What `make docs` does beside mkdocs.yml: files from outside of docs/, folders in the nav, links out of docs/.

The nodes' help pages are in web/docs, where ComfyUI reads them, and the examples' pictures beside the examples. Both
are put into the site from there. A link to a file that is not on the site leads to the repository instead.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
#: Folder of the repository → folder of the site, and which of its files the site takes.
OUTSIDE = {
    "web/docs": ("nodes", (".md",)),
    "web/docs/images": ("nodes/images", (".png",)),
    "example_workflows": ("examples", (".jpg", ".webp")),
}
#: Of a link its target: in angle brackets, in round ones, or the source of a picture.
LINK = re.compile(r"""(\]\()<([^>\n]+)>(?=\))|(\]\()([^)\s<]+)(?=\))|((?:src|href)=")([^"]+)(?=")""")


def on_config(config: Any) -> Any:
    """In the nav, a folder becomes its pages, in the order of their titles."""
    config.nav = [_with_pages(item) for item in config.nav]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the help pages and pictures from outside of docs/."""
    for folder, (_, endings) in OUTSIDE.items():
        for path in sorted((ROOT / folder).iterdir()):
            if path.suffix in endings:
                place = _on_site(path.relative_to(ROOT).as_posix())
                files.append(File.generated(config, place, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links by the repository's paths become links of the site, or of the repository on the web."""
    if page.is_homepage:
        page.meta.setdefault("hide", ["navigation"])
    if page.file.src_uri.startswith(("api.", "architecture/")):
        page.meta.setdefault("search", {"boost": 0.3})  # who searches for a node wants its page first
    here = Path(page.file.abs_src_path).relative_to(ROOT).parent.as_posix()

    def mended(found: re.Match[str]) -> str:
        before, target = (part for part in found.groups() if part is not None)
        return before + _target(unquote(target), here, page.file.src_uri, config.repo_url, files)

    return LINK.sub(mended, markdown)


def _target(target: str, here: str, page: str, repository: str, files: Any) -> str:
    path, _, anchor = target.partition("#")
    anchor = f"#{anchor}" if anchor else ""
    source = f"{repository}/blob/main/"
    if path.startswith(source):
        wanted = path.removeprefix(source)
    elif path and not re.match(r"[a-z]+:", path):
        wanted = posixpath.normpath(posixpath.join(here, path))
    else:
        return target
    place = _on_site(wanted)
    if files.get_file_from_path(place) and not place.endswith((".py", ".json")):
        return quote(posixpath.relpath(place, posixpath.dirname(page) or ".")) + anchor
    if (ROOT / wanted).exists():
        return f"{repository}/{'tree' if (ROOT / wanted).is_dir() else 'blob'}/main/{quote(wanted)}{anchor}"
    return quote(path) + anchor


def _on_site(path: str) -> str:
    """Where a file of the repository is on the site, were it there."""
    folder, name = posixpath.split(path)
    if folder in OUTSIDE:
        place, endings = OUTSIDE[folder]
        if PurePosixPath(name).suffix in endings:
            return f"{place}/{re.sub(r'[^A-Za-z0-9_.]+', '-', name)}"
    return posixpath.relpath(path, "docs")


def _with_pages(item: Any) -> Any:
    if isinstance(item, list):
        return [_with_pages(one) for one in item]
    if isinstance(item, dict):
        return {title: _with_pages(value) for title, value in item.items()}
    if not item.endswith("/"):
        return item
    folder = next((source for source, (place, _) in OUTSIDE.items() if f"{place}/" == item), f"docs/{item}")
    titles = {path.name: path.read_text(encoding="utf-8").partition("\n")[0] for path in (ROOT / folder).glob("*.md")}
    return [f"{item}{name}" for name in sorted(titles, key=titles.__getitem__)]

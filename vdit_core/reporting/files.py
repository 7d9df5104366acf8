"""What a report writes beside its videos: pages, figures as JSON, pictures. Each file is whole or not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from ..atomic import whole_file


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, found: Any) -> None:
    """Write JSON that a person can read."""
    write_text(path, json.dumps(found, indent=1) + "\n")


def write_picture(path: Path, picture: Image.Image) -> None:
    """Write a picture in the format of its suffix."""
    with whole_file(path) as part:
        picture.save(part, optimize=True)


def write_page(path: Path, template: Path, **values: Any) -> None:
    """Fill a Jinja template, whose values are escaped."""
    from jinja2 import Environment, FileSystemLoader

    page = Environment(loader=FileSystemLoader(template.parent), autoescape=True).get_template(template.name)
    write_text(path, page.render(**values))

"""Writes the English texts, locales/en/*.json, from the nodes: `python locales/generate.py [http://127.0.0.1:8188]`.

The page shows these texts, and translators begin with them. It asks a running ComfyUI, whose nodes have the texts.
`translations.py` says what the other languages then lack.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

FOLDER = Path(__file__).parent / "en"


def generate(schemas: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The files' texts by name. schemas: ComfyUI's /object_info, by the id of the node."""
    ours = {name: schema for name, schema in sorted(schemas.items()) if name.startswith("VDiT_")}
    # The page looks up each part of a path by itself.
    parts = sorted({part for schema in ours.values() for part in schema["category"].split("/")})
    contents = {
        "main.json": {"nodeCategories": {part: part for part in parts}},
        "nodeDefs.json": {name: _node(schema) for name, schema in ours.items()},
    }
    return {file: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for file, content in contents.items()}


def _node(schema: dict[str, Any]) -> dict[str, Any]:
    groups = (schema["input"].get("required", {}), schema["input"].get("optional", {}))
    inputs = {
        name: {"name": options.get("display_name") or name.replace("_", " "), "tooltip": options["tooltip"]}
        for group in groups
        for name, (_, options) in group.items()
    }
    outputs = {
        str(n): {"name": name, "tooltip": tooltip}
        for n, (name, tooltip) in enumerate(zip(schema["output_name"], schema["output_tooltips"], strict=True))
    }
    texts = {"display_name": schema["display_name"], "description": schema["description"]}
    return texts | ({"inputs": inputs} if inputs else {}) | {"outputs": outputs}


if __name__ == "__main__":
    address = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8188"
    with urlopen(f"{address}/object_info") as answer:
        for file, text in generate(json.load(answer)).items():
            (FOLDER / file).write_text(text, encoding="utf-8")

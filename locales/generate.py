"""Writes locales/en/nodeDefs.json from the schemas of the nodes: `python locales/generate.py [http://127.0.0.1:8188]`.

The page shows this file's texts, and translators begin with it. It asks a running ComfyUI, whose nodes have the texts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

FILE = Path(__file__).parent / "en" / "nodeDefs.json"


def generate(schemas: dict[str, dict[str, Any]]) -> str:
    """The file's text. schemas: ComfyUI's /object_info, by the id of the node."""
    found = {name: _node(schema) for name, schema in sorted(schemas.items()) if name.startswith("VDiT_")}
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


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
        FILE.write_text(generate(json.load(answer)), encoding="utf-8")

"""Prompts of older versions, brought to the names of today (web/renamed.json; the page reads it, too)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_TABLE: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "web" / "renamed.json").read_text(encoding="utf-8")
)


def listen() -> None:
    """Let every prompt that is queued have today's names."""
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)
    if server is not None and hasattr(server, "add_on_prompt_handler"):
        server.add_on_prompt_handler(with_todays_names)


def with_todays_names(request: dict[str, Any]) -> dict[str, Any]:
    """The request of the page or of a script, its prompt changed in place where it names something of old."""
    prompt = request.get("prompt")
    for node in prompt.values() if isinstance(prompt, dict) else ():
        renamed = _TABLE.get(node.get("class_type", "")) if isinstance(node, dict) else None
        inputs = node.get("inputs") if renamed else None
        if not renamed or not isinstance(inputs, dict):
            continue
        for old, new in renamed.get("inputs", {}).items():
            if old in inputs and new not in inputs:
                inputs[new] = inputs.pop(old)
        for name, values in renamed.get("values", {}).items():
            if isinstance(inputs.get(name), str):
                inputs[name] = values.get(inputs[name], inputs[name])
    return request

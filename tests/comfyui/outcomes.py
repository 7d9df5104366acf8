"""What a result tells of a node."""

from __future__ import annotations

from comfyui import graphs
from comfyui.server import Result


def level(result: Result, node: str) -> str | None:
    return result.outcomes.get(node, {}).get("level")


def text(result: Result, node: str) -> str:
    return result.outcomes[node]["text"]


def without(graph: graphs.Graph, *names: str) -> graphs.Graph:
    return {name: node for name, node in graph.items() if name not in names}

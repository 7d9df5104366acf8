"""What the running prompt's graph tells: which node samples, of which pack, and with which settings.

All of it is told where ComfyUI's server runs a prompt; a script that samples without one has no graph.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from comfy_execution.utils import get_executing_context

Node = Mapping[str, Any]


def executing_node() -> str | None:
    """The id of the node that is executed now."""
    context = get_executing_context()
    return None if context is None else context.node_id


def prompt_graph() -> Mapping[str, Node]:
    """The running prompt in API form: node id -> class_type and inputs. Empty if there is none."""
    queue, context = getattr(_server(), "prompt_queue", None), get_executing_context()
    if queue is None or context is None:
        return {}
    running, _ = getattr(queue, "get_current_queue_volatile", queue.get_current_queue)()  # the former copies nothing
    for _number, prompt_id, graph, *_ in running:
        if prompt_id == context.prompt_id:
            return graph
    return {}


def nearest(node: str | None) -> list[Node]:
    """The node itself, if the running prompt has it."""
    graph = prompt_graph()
    return [graph[node]] if node is not None and node in graph else []


def upstream(node: str | None, name: str) -> Iterator[Node]:
    """The nodes of the running prompt behind one input of a node, the nearest first."""
    graph = prompt_graph()
    for each in ids_upstream(graph, node, name):
        yield graph[each]


def before(graph: Mapping[str, Node], node: str | None) -> dict[str, Node]:
    """A node of a graph and all that feeds it, by id; nothing if the graph has no such node."""
    if node is None or node not in graph:
        return {}
    return {each: graph[each] for each in (node, *_walk(graph, map(_link, graph[node]["inputs"].values())))}


def ids_upstream(graph: Mapping[str, Node], node: str | None, name: str) -> Iterator[str]:
    """The ids of the nodes of a graph that are behind one input of a node, the nearest first."""
    return _walk(graph, [_link(graph.get(node or "", {}).get("inputs", {}).get(name))])


def _walk(graph: Mapping[str, Node], start: Iterable[str | None]) -> Iterator[str]:
    seen: set[str] = set()
    waiting = list(start)
    while waiting:
        each = waiting.pop(0)
        if each is not None and each not in seen and each in graph:
            seen.add(each)
            yield each
            waiting += [_link(value) for value in graph[each].get("inputs", {}).values()]


def setting(node: str | None, name: str, types: tuple[type, ...], through: str) -> Any:
    """The value of a sampler node's input, or of the first node behind its input `through` that has one; else None."""
    for each in (*nearest(node), *upstream(node, through)):
        value = each.get("inputs", {}).get(name)
        if isinstance(value, types) and not isinstance(value, bool):
            return value
    return None


def foreign_pack(node: Node) -> str | None:
    """The custom node pack that a node's class is of; None for ComfyUI's own."""
    classes = getattr(sys.modules.get("nodes"), "NODE_CLASS_MAPPINGS", {})
    module = getattr(classes.get(node.get("class_type")), "RELATIVE_PYTHON_MODULE", "")
    return module.partition("custom_nodes.")[2] or None


def _link(value: Any) -> str | None:
    return value[0] if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) else None


def _server() -> Any:
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)

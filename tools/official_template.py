"""One of ComfyUI's own templates, into which nodes are put; all else of it stays."""

from __future__ import annotations

import json
import uuid
from copy import deepcopy
from pathlib import Path
from typing import Any

from workflow_graph import Node, Workflow, node_json
from workflow_parts import SOURCE

#: Where a link of a subgraph comes from or goes to outside.
INPUT, OUTPUT = -10, -20
Place = tuple[float, float]


def folder(comfyui: Path) -> Path:
    """Where the templates are that a ComfyUI installed.

    Raises:
        FileNotFoundError: if they are not there.
    """
    found = next(comfyui.glob(".venv/lib/python3*/site-packages/comfyui_workflow_templates_json/templates"), None)
    if found is None:
        raise FileNotFoundError(f"{comfyui} has no comfyui-workflow-templates-json: install its requirements.txt.")
    return found


_LINK = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")


def _link(saved: dict[str, Any] | list[Any]) -> tuple[int, list[Any]]:
    """A link's number, and [origin, its output, target, its input, type]; a subgraph's links have names."""
    number, *link = [saved[name] for name in _LINK] if isinstance(saved, dict) else saved
    return number, link


class Official:
    """A template under change: its graph, or that of its one subgraph."""

    def __init__(self, file: Path, name: str) -> None:
        self.name = name
        self.workflow = json.loads(file.read_text(encoding="utf-8"))
        subgraphs = self.workflow.get("definitions", {}).get("subgraphs", [])
        self.subgraph = subgraphs[0] if subgraphs else None
        self.graph = self.subgraph or self.workflow
        self.links: dict[int, list[Any]] = dict(map(_link, self.graph["links"]))
        for node in self.workflow["nodes"]:
            if node["type"] == "LoadImage":  # the template's own picture is not on an artist's disk
                node["widgets_values"][0] = "example.png"
        self.workflow["nodes"] = [node for node in self.workflow["nodes"] if node["type"] != "MarkdownNote"]

    def find(self, kind: str, nth: int = 0) -> dict[str, Any]:
        """A node by its class; the nth from the left."""
        found = [node for node in self.graph["nodes"] if node["type"] == kind]
        return sorted(found, key=lambda node: node["pos"][0])[nth]

    def shift(self, left: float, by: float, top: float = -10_000) -> None:
        """Make room: move what begins right of a place, and groups with it."""
        for node in self.graph["nodes"]:
            if node["pos"][0] >= left and node["pos"][1] >= top:
                node["pos"][0] += by
        for group in self.graph.get("groups", ()):
            if group["bounding"][0] >= left:
                group["bounding"][0] += by
        if self.subgraph and self.subgraph["outputNode"]["bounding"][0] >= left:
            self.subgraph["outputNode"]["bounding"][0] += by

    def lower(self, left: float, right: float, top: float, by: float, but: dict[str, Any] | None = None) -> None:
        """Make room in a column: what begins below a height moves down, groups too; a group that holds it grows."""
        for node in self.graph["nodes"]:
            if left <= node["pos"][0] < right and node["pos"][1] >= top and node is not but:
                node["pos"][1] += by
        for group in self.graph["groups"]:
            if left <= group["bounding"][0] < right:
                group["bounding"][1 if group["bounding"][1] >= top else 3] += by

    def add(
        self, kind: str, title: str | None, place: Place, size: Place, look: str | None = None, **values: Any
    ) -> dict[str, Any]:
        """Put a node in; its inputs are connected with `link`."""
        scratch = Workflow("").add(kind, title, look, **values)
        known = [node["id"] for node in (*self.graph["nodes"], *self.workflow["nodes"])]
        scratch.number, scratch.place, scratch.size = max(known) + 1, list(place), list(size)
        made = node_json(scratch, {}, {})
        made["order"] = len(self.graph["nodes"])
        self.graph["nodes"].append(made)
        return made

    def note(self, title: str, text: str, place: Place, size: Place) -> None:
        """A note beside the graph, not inside a subgraph."""
        number = max(node["id"] for node in (*self.graph["nodes"], *self.workflow["nodes"])) + 1
        note = Node(number, "MarkdownNote", title, {}, {"text": text}, "note", list(place), list(size))
        self.workflow["nodes"].append(node_json(note, {}, {}))

    def link(self, origin: dict[str, Any] | int, slot: int, target: dict[str, Any], name: str) -> None:
        """Connect an output, or (INPUT) an input of the subgraph, to an input; what was connected there is let go."""
        slots = [entry["name"] for entry in target["inputs"]]
        if name not in slots:
            widget = {"widget": {"name": name}} if name in target.get("widgets_values_named", {}) else {}
            target["inputs"].append({"name": name, "type": "*", **widget})
            slots.append(name)
        index = slots.index(name)
        for number, (_, _, other, place, _) in list(self.links.items()):
            if (other, place) == (target["id"], index):
                del self.links[number]
        if isinstance(origin, int):
            start, kind = origin, self.graph["inputs"][slot]["type"]
        else:
            start, kind = origin["id"], origin["outputs"][slot]["type"]
        target["inputs"][index]["type"] = kind
        self.links[max(self.links, default=0) + 1] = [start, slot, target["id"], index, kind]

    def origin(self, target: dict[str, Any], name: str) -> tuple[dict[str, Any] | int, int]:
        """What is connected to an input."""
        index = next(i for i, entry in enumerate(target["inputs"]) if entry["name"] == name)
        start, slot = next(link[:2] for link in self.links.values() if link[2:4] == [target["id"], index])
        return (start if start == INPUT else next(n for n in self.graph["nodes"] if n["id"] == start)), slot

    def twin(self, node: dict[str, Any], title: str, place: Place) -> dict[str, Any]:
        """The same node again, with the same inputs."""
        made = deepcopy(node)
        made["id"] = max(n["id"] for n in (*self.graph["nodes"], *self.workflow["nodes"])) + 1
        made["title"], made["pos"] = title, list(place)
        self.graph["nodes"].append(made)
        for start, slot, target, index, kind in list(self.links.values()):
            if target == node["id"]:
                self.links[max(self.links) + 1] = [start, slot, made["id"], index, kind]
        return made

    def ask(self, after: str, name: str, label: str, node: dict[str, Any], widget: str) -> None:
        """Give a subgraph a text input for one of its nodes, below another of its inputs, and show it on the node."""
        inputs, (outer,) = self.graph["inputs"], self._outer()
        slot = 1 + next(n for n, entry in enumerate(inputs) if entry["name"] == after)
        for link in self.links.values():
            if link[0] == INPUT and link[1] >= slot:
                link[1] += 1
        made = {"name": name, "type": "STRING", "label": label}
        place = {"id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.name}/{name}")), "linkIds": [], "pos": [0, 0]}
        inputs.insert(slot, made | place)
        self.link(INPUT, slot, node, widget)
        if proxies := outer["properties"].get("proxyWidgets"):
            proxies.insert(1, [str(node["id"]), widget])
        else:  # a newer page saves the values on the node, in the order of the inputs that are fields
            outer["inputs"].insert(
                1 + next(n for n, entry in enumerate(outer["inputs"]) if entry["name"] == after),
                made | {"widget": {"name": name}, "link": None},
            )
            outer["widgets_values"][:1] = [SOURCE, node["widgets_values"][0]]
        outer["size"][1] += 100

    def _outer(self) -> list[dict[str, Any]]:
        return [node for node in self.workflow["nodes"] if node["type"] == self.graph["id"]]

    def as_json(self) -> dict[str, Any]:
        """The file's content."""
        for node in self.graph["nodes"]:
            for entry in node["inputs"]:
                entry["link"] = None
            for entry in node["outputs"]:
                entry["links"] = []
        by_id = {node["id"]: node for node in self.graph["nodes"]}
        edges = self.subgraph or {"inputs": [], "outputs": []}
        for entry in (*edges["inputs"], *edges["outputs"]):
            entry["linkIds"] = []
        for number, (start, slot, target, index, _) in self.links.items():
            if start == INPUT:
                edges["inputs"][slot]["linkIds"].append(number)
            else:
                by_id[start]["outputs"][slot]["links"].append(number)
            if target == OUTPUT:
                edges["outputs"][index]["linkIds"].append(number)
            else:
                by_id[target]["inputs"][index]["link"] = number
        self.graph["links"] = [
            dict(zip(_LINK, (number, *link), strict=True)) if self.subgraph else [number, *link]
            for number, link in self.links.items()
        ]
        last = {
            "lastNodeId": max(node["id"] for node in (*self.graph["nodes"], *self.workflow["nodes"])),
            "lastLinkId": max(self.links),
        }
        self.workflow |= {"last_node_id": last["lastNodeId"], "last_link_id": last["lastLinkId"]}
        if self.subgraph:
            self.subgraph["state"] |= last
            # A changed graph under the same id would be taken for ComfyUI's own.
            new = str(uuid.uuid5(uuid.NAMESPACE_URL, f"vdit-attention/{self.name}/subgraph"))
            (outer,) = self._outer()
            self.subgraph["id"] = outer["type"] = new
        self.workflow["id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"vdit-attention/{self.name}"))
        self.workflow["extra"] = {"ds": {"scale": 0.6, "offset": [700, 300]}}
        return self.workflow

"""Writes the subgraph blueprints: python tools/blueprints.py. A ComfyUI with this pack must run at port 8188."""

from __future__ import annotations

import json
import urllib.request
import uuid
from pathlib import Path
from typing import Any

from workflow_graph import NODES, Node, Workflow, node_json

FOLDER = Path(__file__).parents[1] / "subgraphs"
INPUT, OUTPUT = -10, -20
#: Inputs of both: what is connected, and what shows as a field on the node.
SOCKETS = {
    "model": "MODEL", "source": "CONDITIONING", "target": "CONDITIONING", "negative": "CONDITIONING",
    "latent": "LATENT", "vae": "VAE", "mask": "LAYER_MASK,HEAD_MASK",
}  # fmt: skip
LABELS = {"source": "source prompt", "target": "target prompt", "negative": "negative prompt", "latent": "empty latent"}
FIELDS = {"seed": "INT", "steps": "INT", "cfg": "FLOAT", "sampler_name": "COMBO", "scheduler": "COMBO"}
DEFAULTS = {"seed": 1, "steps": 30, "cfg": 6.0, "sampler_name": "uni_pc", "scheduler": "simple"}


class Blueprint:
    """A subgraph under construction: nodes, and what of them is connected to the outside."""

    def __init__(self, name: str, description: str) -> None:
        self.name, self.description, self.flow = name, description, Workflow(name)
        self.inside: dict[str, list[tuple[Node, str]]] = {name: [] for name in (*SOCKETS, *FIELDS)}
        self.outside: dict[str, tuple[Node, int]] = {}

    def add(self, kind: str, title: str, place: tuple[float, float], size: tuple[float, float], outside: dict[str, str],
            **inputs: Any) -> Node:  # fmt: skip
        """A node; outside: its inputs that are the subgraph's, by the name that they have there."""
        node = self.flow.add(kind, title, **inputs)
        node.place, node.size = list(place), list(size)
        for own, name in outside.items():
            self.inside[name].append((node, own))
        return node

    def as_json(self) -> dict[str, Any]:
        """The file's content: one node, and the graph inside it."""
        names = [name for name, used in self.inside.items() if used]
        links: list[dict[str, Any]] = []
        made = {node.number: node_json(node, {}, dict.fromkeys(((node.number, name) for name in node.links), 0))
                for node in self.flow.nodes}  # fmt: skip

        def connect(origin: int, output: int, target: int, slot: int, kind: str) -> int:
            links.append({"id": len(links) + 1, "origin_id": origin, "origin_slot": output, "target_id": target,
                          "target_slot": slot, "type": kind})  # fmt: skip
            return len(links)

        for node in self.flow.nodes:
            for slot, (start, output) in enumerate(node.links.values()):
                out = made[start.number]["outputs"][output]
                number = connect(start.number, output, node.number, slot, out["type"])
                made[node.number]["inputs"][slot]["link"] = number
                out["links"] = [*(out["links"] or []), number]
        inputs = []
        for n, name in enumerate(names):
            kind, numbers = (SOCKETS | FIELDS)[name], []
            for node, own in self.inside[name]:
                entries = made[node.number]["inputs"]
                numbers.append(connect(INPUT, n, node.number, len(entries), kind))
                field = {"widget": {"name": own}} if name in FIELDS else {}
                entries.append({"name": own, "type": kind, "link": numbers[-1], **field})
            inputs.append({"id": self._id(f"input/{name}"), "name": name, "type": kind, "linkIds": numbers,
                           "label": LABELS.get(name, name.replace("_", " ")), "pos": [0, 0]})  # fmt: skip
        outputs = []
        for n, (name, (node, output)) in enumerate(self.outside.items()):
            out = made[node.number]["outputs"][output]
            number = connect(node.number, output, OUTPUT, n, out["type"])
            out["links"] = [*(out["links"] or []), number]
            outputs.append({"id": self._id(f"output/{name}"), "name": name, "type": out["type"], "linkIds": [number],
                            "label": name, "pos": [0, 0]})  # fmt: skip
        right = max(node.place[0] + node.size[0] for node in self.flow.nodes)
        last = len(self.flow.nodes)
        subgraph = {
            "id": self._id("subgraph"), "version": 1, "revision": 0, "config": {}, "name": self.name,
            "state": {"lastGroupId": 0, "lastNodeId": last, "lastLinkId": len(links), "lastRerouteId": 0},
            "inputNode": {"id": INPUT, "bounding": [-240, 60, 130, 20 * len(inputs) + 60]},
            "outputNode": {"id": OUTPUT, "bounding": [right + 100, 60, 120, 100]},
            "inputs": inputs, "outputs": outputs, "widgets": [], "nodes": list(made.values()), "groups": [],
            "links": links, "extra": {}, "category": "VDiT Attention/transfer", "description": self.description,
        }  # fmt: skip
        node = {
            "id": last + 1, "type": subgraph["id"], "pos": [0, 0], "size": [340, 420], "flags": {}, "order": 0,
            "mode": 0, "title": self.name,
            "inputs": [{"name": entry["name"], "label": entry["label"], "type": entry["type"], "link": None}
                       for entry in inputs if entry["name"] in SOCKETS],
            "outputs": [{"name": entry["name"], "label": entry["label"], "type": entry["type"], "links": []}
                        for entry in outputs],
            "properties": {"proxyWidgets": [[str(self.inside[name][0][0].number), self.inside[name][0][1]]
                                            for name in names if name in FIELDS]},
            "widgets_values": [],
        }  # fmt: skip
        return {"revision": 0, "last_node_id": last + 1, "last_link_id": 0, "nodes": [node], "links": [],
                "version": 0.4, "definitions": {"subgraphs": [subgraph]}, "extra": {}}  # fmt: skip

    def _id(self, what: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"vdit-attention/blueprint/{self.name}/{what}"))


SAMPLER = {**{name: name for name in FIELDS}, "negative": "negative"}


def live() -> Blueprint:
    """Source and target in one batch."""
    made = Blueprint(
        "Live transfer - source and target",
        "Samples a source and a target prompt in one batch, the target with the source's attention. Nothing is stored.",
    )
    transfer = made.add("VDiT_LiveTransfer", "Live Transfer", (0, 60), (340, 310),
                        {name: name for name in ("model", "source", "target", "latent", "mask")})  # fmt: skip
    sampler = made.add("KSampler", "Both in one batch", (420, 60), (310, 310), SAMPLER, model=transfer.out(0),
                       positive=transfer.out(1), latent_image=transfer.out(2), **DEFAULTS)  # fmt: skip
    for n, name in enumerate(("source", "target")):
        top = 60 + 190 * n
        picked = made.add("LatentFromBatch", f"{n}: {name}", (800, top), (240, 110), {}, samples=sampler.out(),
                          batch_index=n, length=1)  # fmt: skip
        decoded = made.add("VAEDecode", name, (1110, top), (220, 70), {"vae": "vae"}, samples=picked.out())
        made.outside[f"{name} video"] = (decoded, 0)
    return made


def recorded() -> Blueprint:
    """A recorded source, then its target."""
    made = Blueprint(
        "Transfer - source and target",
        "Samples and records a source prompt, then a target prompt with the source's attention. The recording is kept "
        "in RAM: Record Attention inside says how large it is, and takes fewer layers and steps.",
    )
    record = made.add("VDiT_RecordAttention", "Record Attention", (0, 60), (340, 290), {"model": "model"},
                      quantization="int8")  # fmt: skip
    both = {**SAMPLER, "latent_image": "latent"}
    source = made.add("KSampler", "Source", (420, 60), (310, 310), both | {"positive": "source"}, model=record.out(0),
                      **DEFAULTS)  # fmt: skip
    finish = made.add("VDiT_FinishRecording", "Finish Recording", (800, 60), (240, 110), {}, recorder=record.out(1),
                      latent=source.out())  # fmt: skip
    transfer = made.add("VDiT_TransferAttention", "Transfer Attention", (1110, 250), (340, 220),
                        {"model": "model", "mask": "mask"}, store=finish.out(0))  # fmt: skip
    target = made.add("KSampler", "Target", (1520, 250), (310, 310), both | {"positive": "target"},
                      model=transfer.out(), **DEFAULTS)  # fmt: skip
    for name, latent, place in (("source", finish.out(1), (1900, 60)), ("target", target.out(), (1900, 250))):
        decoded = made.add("VAEDecode", name, place, (220, 70), {"vae": "vae"}, samples=latent)
        made.outside[f"{name} video"] = (decoded, 0)
    return made


def main() -> None:
    """Write them."""
    with urllib.request.urlopen("http://127.0.0.1:8188/object_info", timeout=60) as answer:
        NODES.update(json.load(answer))
    FOLDER.mkdir(exist_ok=True)
    for made in (live(), recorded()):
        path = FOLDER / f"{made.name}.json"
        path.write_text(json.dumps(made.as_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(path.name)


if __name__ == "__main__":
    main()

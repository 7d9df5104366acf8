"""A workflow as ComfyUI's page saves it, laid out in columns, from what a server says of its nodes."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

from workflow_wires import route

#: What the server says of each kind of node: to be filled before a workflow is made.
NODES: dict[str, Any] = {}
ORG = "https://huggingface.co/Comfy-Org"
WAN21, WAN22 = f"{ORG}/Wan_2.1_ComfyUI_repackaged", f"{ORG}/Wan_2.2_ComfyUI_Repackaged"
HUNYUAN, LTX = f"{ORG}/HunyuanVideo_1.5_repackaged", f"{ORG}/ltx-2"
#: Where a model file is: (repository, folder in it and in ComfyUI).
FILES = {
    "umt5_xxl_fp8_e4m3fn_scaled.safetensors": (WAN21, "text_encoders"),
    "wan_2.1_vae.safetensors": (WAN21, "vae"),
    "wan2.1_t2v_1.3B_fp16.safetensors": (WAN21, "diffusion_models"),
    "wan2.1_vace_1.3B_fp16.safetensors": (WAN21, "diffusion_models"),
    "wan2.1_i2v_480p_14B_fp16.safetensors": (WAN21, "diffusion_models"),
    "clip_vision_h.safetensors": (WAN21, "clip_vision"),
    "wan2.2_ti2v_5B_fp16.safetensors": (WAN22, "diffusion_models"),
    "wan2.2_vae.safetensors": (WAN22, "vae"),
    **{f"wan2.2_{kind}_{part}_noise_14B_fp8_scaled.safetensors": (WAN22, "diffusion_models")
       for kind in ("t2v", "i2v") for part in ("high", "low")},
    **{f"wan2.2_t2v_lightx2v_4steps_lora_v1.1_{part}_noise.safetensors": (WAN22, "loras") for part in ("high", "low")},
    **{f"wan2.2_i2v_lightx2v_4steps_lora_v1_{part}_noise.safetensors": (WAN22, "loras") for part in ("high", "low")},
    "qwen_2.5_vl_7b_fp8_scaled.safetensors": (HUNYUAN, "text_encoders"),
    "byt5_small_glyphxl_fp16.safetensors": (HUNYUAN, "text_encoders"),
    "hunyuanvideo15_vae_fp16.safetensors": (HUNYUAN, "vae"),
    "hunyuanvideo1.5_720p_t2v_fp16.safetensors": (HUNYUAN, "diffusion_models"),
    "gemma_3_12B_it_fp4_mixed.safetensors": (LTX, "text_encoders"),
    "ltx-2-19b-dev-fp8.safetensors": ("https://huggingface.co/Lightricks/LTX-2", "checkpoints"),
}  # fmt: skip
COLORS = {"prompt": ("#232", "#353"), "negative": ("#322", "#533"), "setting": ("#223", "#335"),
          "ours": ("#2b2540", "#453a6b"), "note": ("#432", "#653")}  # fmt: skip
GROUPS = ("#5b9bc0", "#a183d8", "#9a9a9a", "#d3a545")
#: px: of a column and between two; of a title bar, a slot or widget, and what is below a node.
WIDTH, GAP, TITLE, ROW, MARGIN = 340, 110, 30, 24, 52
#: px that some nodes need beyond their slots and widgets: a text, a preview (a sampler's, too), cells.
TALL = {"CLIPTextEncode": 64, "MarkdownNote": 150, "VDiT_LayerMask": 190, "SaveVideo": 380, "LoadImage": 300,
        "LoadVideo": 300, "VDiT_SideBySide": 120, "PreviewImage": 420, "PreviewAny": 320,
        "KSampler": 230, "KSamplerAdvanced": 230, "SamplerCustomAdvanced": 230}  # fmt: skip


@dataclass
class Node:
    """A node of a workflow. links: its inputs that are connected, as (node, output). values: its widgets'."""

    number: int
    kind: str
    title: str | None
    links: dict[str, tuple[Node, int]]
    values: dict[str, Any]
    look: str | None
    place: list[float] = field(default_factory=list)
    size: list[float] = field(default_factory=list)

    def out(self, output: int = 0) -> tuple[Node, int]:
        """One of its outputs, for another node's input."""
        return self, output


class Workflow:
    """A graph under construction, laid out in columns."""

    def __init__(self, name: str) -> None:
        self.name, self.nodes, self.columns = name, [], []
        self.groups: list[tuple[str, int, int]] = []

    def column(self, *nodes: Node, width: float = WIDTH) -> None:
        """Put nodes below one another, right of the columns before."""
        left, y = sum(w + GAP for _, w in self.columns), 0.0
        for node in nodes:
            node.place, node.size = [left, y], [width, self._height(node)]
            y += node.size[1] + TITLE + MARGIN
        self.columns.append((list(nodes), width))

    def group(self, title: str, first: int, last: int) -> None:
        """A frame around some columns."""
        self.groups.append((title, first, last))

    def add(self, kind: str, title: str | None = None, look: str | None = None, **inputs: Any) -> Node:
        """A node; inputs are values of widgets, or outputs of other nodes."""
        links = {name: value for name, value in inputs.items() if isinstance(value, tuple)}
        values = {name: value for name, value in inputs.items() if name not in links}
        if kind.startswith("VDiT_"):
            look = "ours"
        node = Node(len(self.nodes) + 1, kind, title, links, values, look)
        self.nodes.append(node)
        return node

    def note(self, title: str, text: str) -> Node:
        """A note (Markdown)."""
        return self.add("MarkdownNote", title, "note", text=text)

    def _height(self, node: Node) -> float:
        if node.kind == "MarkdownNote":
            return 60 + 18 * sum(1 + len(line.split("](")[0]) // 50 for line in node.values["text"].splitlines())
        slots = max(len(_sockets(node.kind)), len(NODES[node.kind]["output"]))
        return 12 + ROW * (slots + len(_widgets(node.kind))) + TALL.get(node.kind, 0)

    def as_json(self) -> dict[str, Any]:
        """The file's content."""
        links: list[list[Any]] = []
        outputs: dict[tuple[int, int], list[int]] = {}
        inputs: dict[tuple[int, str], int] = {}
        for node in self.nodes:
            for slot, (name, (origin, output)) in enumerate(node.links.items()):
                number = len(links) + 1
                kind = NODES[origin.kind]["output"][output]
                links.append([number, origin.number, output, node.number, slot, kind])
                outputs.setdefault((origin.number, output), []).append(number)
                inputs[node.number, name] = number
        found = {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"vdit-attention/{self.name}")),
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(links),
            "nodes": [node_json(node, outputs, inputs) for node in self.nodes],
            "links": links,
            "groups": [self._group(n, *group) for n, group in enumerate(self.groups)],
            "config": {},
            "extra": {"ds": {"scale": 0.6, "offset": [120, 120]}},
            "version": 0.4,
        }
        route(found, [[node.number for node in nodes] for nodes, _ in self.columns])
        return found

    def _group(self, number: int, title: str, first: int, last: int) -> Any:
        nodes = [node for column, _ in self.columns[first : last + 1] for node in column]
        left, top = (min(node.place[i] for node in nodes) for i in (0, 1))
        right, bottom = (max(node.place[i] + node.size[i] for node in nodes) for i in (0, 1))
        box = [left - 20, top - 82, right - left + 40, bottom - top + 112]
        return {"id": number + 1, "title": title, "bounding": box, "color": GROUPS[number % 4], "flags": {}}


def node_json(node: Node, outputs: dict[tuple[int, int], list[int]], inputs: dict[tuple[int, str], int]) -> Any:
    """A node as the page saves it. outputs: its links by node and output; inputs: by node and input."""
    note = node.kind == "MarkdownNote"
    schema = NODES.get(node.kind, {"output": [], "output_name": []})
    values = {"text": node.values["text"]} if note else _values(node)
    found: dict[str, Any] = {
        "id": node.number, "type": node.kind, "pos": node.place, "size": node.size, "flags": {},
        "order": node.number - 1, "mode": 0,
        "inputs": [_input(node.kind, name, inputs[node.number, name]) for name in node.links],
        "outputs": [
            {"name": name, "type": kind, "links": outputs.get((node.number, n))}
            for n, (name, kind) in enumerate(zip(schema["output_name"], schema["output"], strict=True))
        ],
        "properties": {} if note else {"Node name for S&R": node.kind},
        "widgets_values": list(values.values()),
    }  # fmt: skip
    if models := [_model(value) for value in values.values() if value in FILES]:
        found["properties"]["models"] = models
    if not note:
        found["widgets_values_named"] = values
    if node.title:
        found["title"] = node.title
    if node.look:
        found["color"], found["bgcolor"] = COLORS[node.look]
    return found


_WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3")


def _inputs(kind: str) -> dict[str, list[Any]]:
    found = {}
    for part in ("required", "optional"):
        names = NODES[kind]["input_order"].get(part, ())
        found.update({name: NODES[kind]["input"][part][name] for name in names})
    return found


def _is_widget(spec: list[Any]) -> bool:
    kind, options = spec[0], spec[1] if len(spec) > 1 else {}
    simple = isinstance(kind, list) or kind.split(",")[0] in _WIDGETS
    return simple and not options.get("forceInput")


def _sockets(kind: str) -> list[str]:
    return [name for name, spec in _inputs(kind).items() if not _is_widget(spec)]


def _widgets(kind: str) -> dict[str, list[Any]]:
    return {name: spec for name, spec in _inputs(kind).items() if _is_widget(spec)}


def _values(node: Node) -> dict[str, Any]:
    """The values of all widgets, in the order of the page, with what stands behind a seed."""
    values: dict[str, Any] = {}
    for name, spec in _widgets(node.kind).items():
        options = spec[1] if len(spec) > 1 else {}
        choices = (spec[0] if isinstance(spec[0], list) else options.get("options")) or [""]
        first = choices[0]["key"] if isinstance(choices[0], dict) else choices[0]
        values[name] = node.values.get(name, options.get("default", first))
        if options.get("control_after_generate"):
            values["control_after_generate"] = "fixed"
        if options.get("image_upload") or options.get("video_upload"):
            values["upload"] = "image"
    if unknown := set(node.values) - set(values):
        raise ValueError(f"{node.kind} has no {sorted(unknown)}; it has {sorted(values)}")
    if missing := set(node.links) - set(_inputs(node.kind)):
        raise ValueError(f"{node.kind} has no {sorted(missing)}; it has {sorted(_inputs(node.kind))}")
    return values


def _input(kind: str, name: str, link: int) -> dict[str, Any]:
    spec = _inputs(kind)[name]
    found: dict[str, Any] = {"name": name, "type": "COMBO" if isinstance(spec[0], list) else spec[0], "link": link}
    return found | ({"widget": {"name": name}} if _is_widget(spec) else {})


def _model(name: str) -> dict[str, str]:
    repository, folder = FILES[name]
    inside = "" if folder == "checkpoints" else f"split_files/{folder}/"
    return {"name": name, "url": f"{repository}/resolve/main/{inside}{name}?download=true", "directory": folder}


def files_of(*names: str) -> str:
    """The model files that a workflow needs, for its note."""
    return "\n".join(f"- **{FILES[name][1]}**: [{name}]({_model(name)['url']})" for name in names)

"""What several example workflows have alike: prompts, a pair of videos, a source and its target, the notes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from workflow_graph import Node, Workflow, files_of

from vdit_core.tiny_wan.captions import Caption

FOLDER = Path(__file__).parents[1] / "example_workflows"
PICTURE = "The picture of this workflow in the template list shows the demo model."
LABELS = ("source", "with the source's attention")
SOURCE, TARGET = str(Caption("car")), str(Caption("car", season="winter"))


def negative_text() -> str:
    """What ComfyUI's templates of Wan say against a poor picture, from an example that has it."""
    nodes = json.loads((FOLDER / "13 Sinks - Wan2.1 T2V 1.3B.json").read_text(encoding="utf-8"))["nodes"]
    return next(node["widgets_values"][0] for node in nodes if node.get("title") == "Negative prompt")


def prompts(flow: Workflow, clip: Node, target: str = TARGET) -> tuple[Node, Node, Node]:
    """Source, target and negative prompt."""
    source = flow.add("CLIPTextEncode", "Source prompt", "prompt", clip=clip.out(), text=SOURCE)
    other = flow.add("CLIPTextEncode", "Target prompt", "prompt", clip=clip.out(), text=target)
    return (
        source,
        other,
        flow.add("CLIPTextEncode", "Negative prompt", "negative", clip=clip.out(), text=negative_text()),
    )


def side_by_side(
    flow: Workflow,
    first: Node,
    second: Node,
    fps: float,
    prefix: str,
    labels: tuple[str, str] = LABELS,
    enlarge: int = 1,
) -> list[Node]:
    """Two clips beside each other under their labels, saved."""
    both = flow.add(
        "VDiT_SideBySide", first=first.out(), second=second.out(), labels="\n".join(labels), enlarge=enlarge
    )
    video = flow.add("CreateVideo", images=both.out(), fps=fps)
    save = flow.add("SaveVideo", video=video.out(), filename_prefix=prefix)
    return [both, video, save]


def one_video_each(flow: Workflow, latent: Node, vae: Node) -> tuple[list[Node], list[Node]]:
    """The two videos of a live transfer's batch, decoded one by one."""
    picked = [
        flow.add("LatentFromBatch", f"{n}: {name}", samples=latent.out(), batch_index=n, length=1)
        for n, name in enumerate(("source", "target"))
    ]
    return picked, [flow.add("VAEDecode", samples=one.out(), vae=vae.out()) for one in picked]


def begun(flow: Workflow, kind: str, source: Node, target: Node, **inputs: Any) -> list[Node]:
    """Source and target prompt with the same pictures and size."""
    return [
        flow.add(kind, title, positive=prompt.out(), batch_size=1, **inputs)
        for title, prompt in (("Source", source), ("Target: the same size", target))
    ]


def read_me(flow: Workflow, title: str, files: list[str], text: str) -> Node:
    """The note that names a workflow's files."""
    return flow.note("Read me", f"## {title}\n\n{files_of(*files)}\n\n{text}\n\n{PICTURE}")


def recorded(
    flow: Workflow, model: Any, layers: str, steps: str, sample: Any, prompts_: tuple[Any, Any]
) -> tuple[list[Node], list[Node], list[Any]]:
    """A recorded source and a target with its attention. sample: (name, model, prompt) -> nodes, latent."""
    record = flow.add("VDiT_RecordAttention", model=model, layers=layers, steps=steps, branches="cond",
                      quantization="int8", memory_gb=12.0)  # fmt: skip
    nodes, latent = sample("Source", record.out(0), prompts_[0])
    finish = flow.add("VDiT_FinishRecording", recorder=record.out(1), latent=latent)
    transfer = flow.add("VDiT_TransferAttention", model=model, store=finish.out(0), branches="cond")
    others, other = sample("Target", transfer.out(), prompts_[1])
    return [record, *nodes, finish], [transfer, *others], [finish.out(1), other]


def guided(
    flow: Workflow, name: str, model: Any, positive: Any, negative: Any, cfg: float, **inputs: Any
) -> tuple[list[Node], Any]:
    """A guider and its sampler, and the latent; inputs: the sampler's others."""
    guider = flow.add("CFGGuider", f"{name}: guidance", model=model, positive=positive, negative=negative, cfg=cfg)
    sampler = flow.add("SamplerCustomAdvanced", f"{name}: sampler", guider=guider.out(), **inputs)
    return [guider, sampler], sampler.out()


def framed(flow: Workflow, *groups: tuple[str, int, int]) -> Workflow:
    """The workflow with frames around columns."""
    for group in groups:
        flow.group(*group)
    return flow

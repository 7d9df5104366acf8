"""Graphs in ComfyUI's API form, made of stock nodes and the pack's."""

from __future__ import annotations

from typing import Any

from vdit_core.tiny_wan.files import GUIDANCE

SOURCE, TARGET = "A car is driving on the highway", "A red car is driving on the highway"
Graph = dict[str, dict[str, Any]]


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def demo(source: str = SOURCE, target: str = TARGET) -> Graph:
    """The demo model and the two prompts."""
    return {
        "demo": node("VDiT_DemoModel"),
        "source": node("CLIPTextEncode", clip=["demo", 1], text=source),
        "target": node("CLIPTextEncode", clip=["demo", 1], text=target),
        "nothing": node("CLIPTextEncode", clip=["demo", 1], text=""),
        "empty": node("EmptyHunyuanLatentVideo", width=128, height=128, length=17, batch_size=1),
    }


def sampler(model: list, prompt: str, seed: int = 7, steps: int = 3, **changes: Any) -> dict[str, Any]:
    settings = {
        "model": model,
        "positive": [prompt, 0],
        "negative": ["nothing", 0],
        "latent_image": ["empty", 0],
        "seed": seed,
        "steps": steps,
        "cfg": GUIDANCE,
        "sampler_name": "euler",
        "scheduler": "simple",
        "denoise": 1.0,
    }
    return node("KSampler", **settings | changes)


def record(model: list, **changes: Any) -> dict[str, Any]:
    settings = {
        "layers": "all",
        "steps": "all",
        "branches": "all",
        "quantization": "none",
        "memory_gb": 4,
        "heads": "all",
        "what": "queries and keys",
    }
    return node("VDiT_RecordAttention", model=model, **settings | changes)


def where(**changes: Any) -> dict[str, Any]:
    return {"steps": "all", "strength": 1.0, "branches": "all", "heads": "all"} | changes


def transfer(seed: int = 7, steps: int = 3, recording: dict[str, Any] | None = None, **changes: Any) -> Graph:
    """The paper's experiment: a source is sampled and recorded, its maps go into the target; both latents are saved."""
    return demo() | {
        "record": record(["demo", 0], **recording or {}),
        "sample source": sampler(["record", 0], "source", seed, steps),
        "finish": node("VDiT_FinishRecording", recorder=["record", 1], latent=["sample source", 0]),
        "transfer": node(
            "VDiT_TransferAttention", model=["demo", 0], store=["finish", 0], gap=0.001, **where(**changes)
        ),
        "sample target": sampler(["transfer", 0], "target", seed, steps),
        "save source": node("SaveLatent", samples=["finish", 1], filename_prefix="source"),
        "save target": node("SaveLatent", samples=["sample target", 0], filename_prefix="target"),
    }


def recorded(name: str, prompt: str, seed: int = 7, steps: int = 3, **changes: Any) -> Graph:
    """A sampled and recorded prompt; its store is output 0 of node "<name>"."""
    return {
        f"record {name}": record(["demo", 0], **changes),
        f"sample {name}": sampler([f"record {name}", 0], prompt, seed, steps),
        name: node("VDiT_FinishRecording", recorder=[f"record {name}", 1], latent=[f"sample {name}", 0]),
    }


def structure(store: str, **changes: Any) -> dict[str, Any]:
    settings = {
        "layer": -1, "step": -1, "head": -1, "branch": "cond", "log_scale": True, "layers": "all", "steps": "all",
        "queries": "auto", "pooled": 512, "sample": 0, "rows": "", "columns": "",
    }  # fmt: skip
    return node("VDiT_AttentionStructure", store=[store, 0], **settings | changes)


def compare(first: str, second: str, **changes: Any) -> dict[str, Any]:
    settings = {"layers": "all", "steps": "all", "branches": "all", "other_step": -1}
    return node("VDiT_CompareAttention", first=[first, 0], second=[second, 0], **settings | changes)


def head_roles(store: str, **changes: Any) -> dict[str, Any]:
    settings = {
        "preset": "motion only", "strength": 1.0, "layers": "all", "steps": "all", "branch": "cond", "queries": "auto",
    }  # fmt: skip
    return node("VDiT_HeadRoles", store=[store, 0], **settings | changes)


def sweep(steps: int = 3, seed: int = 7, **changes: Any) -> Graph:
    """A layer sweep, its chart saved."""
    settings = {
        "model": ["demo", 0], "source": ["source", 0], "target": ["target", 0], "negative": ["nothing", 0],
        "vae": ["demo", 2], "latent": ["empty", 0], "seed": seed, "steps": steps, "cfg": GUIDANCE,
        "sampler_name": "euler", "scheduler": "simple", "mode": "each", "transfer_steps": "all", "videos_per_batch": 0,
    }  # fmt: skip
    return demo() | {
        "sweep": node("VDiT_LayerSweep", **settings | changes),
        "save": node("SaveImage", images=["sweep", 1], filename_prefix="sweep"),
        "say": node("PreviewAny", source=["sweep", 3]),
    }


def live(targets: int = 1, seed: int = 7, steps: int = 3, **changes: Any) -> Graph:
    """Source and targets in one batch."""
    more = {f"target_{n}": ["target", 0] for n in range(2, targets + 1)}
    return demo() | {
        "live": node(
            "VDiT_LiveTransfer", model=["demo", 0], source=["source", 0], target=["target", 0], latent=["empty", 0],
            **more, **where(**changes),
        ),
        "sample": sampler(["live", 0], "live", seed, steps, positive=["live", 1], latent_image=["live", 2]),
        "save": node("SaveLatent", samples=["sample", 0], filename_prefix="live"),
    }  # fmt: skip


def stock(prompt: str = "target", seed: int = 7, steps: int = 3, **changes: Any) -> Graph:
    """No node of the pack but the demo model."""
    return demo() | {
        "sample": sampler(["demo", 0], prompt, seed, steps, **changes),
        "save": node("SaveLatent", samples=["sample", 0], filename_prefix="stock"),
    }


def sparse(model: list, **changes: Any) -> dict[str, Any]:
    """Sparse Attention that acts everywhere, fast or not."""
    settings = {
        "keep": 30.0, "method": "exact top-k", "dense_layers": "none", "dense_first": 0.0, "dense_last": 0.0,
        "first_frame": False, "minimum_tokens": 0, "if_slower": "sparse", "temperature": 1.0,
    }  # fmt: skip
    return node("VDiT_SparseAttention", model=model, **settings | changes)


def sparsely(seed: int = 7, steps: int = 3, **changes: Any) -> Graph:
    """The target's prompt, sampled with sparse attention."""
    return demo() | {
        "sparse": sparse(["demo", 0], **changes),
        "sample": sampler(["sparse", 0], "target", seed, steps),
        "save": node("SaveLatent", samples=["sample", 0], filename_prefix="sparse"),
    }


def itself(seed: int = 7, steps: int = 3) -> dict[str, Any]:
    """The inputs of nodes that sample by themselves."""
    return {
        "model": ["demo", 0], "positive": ["target", 0], "negative": ["nothing", 0], "vae": ["demo", 2],
        "latent": ["empty", 0], "seed": seed, "steps": steps, "cfg": GUIDANCE, "sampler_name": "euler",
        "scheduler": "simple",
    }  # fmt: skip


def sparsity_profile(steps: int = 3, **changes: Any) -> dict[str, Any]:
    settings = {"method": "exact top-k", "keep": 30.0, "measure": "one run", "videos_per_batch": 0}
    return node("VDiT_SparsityProfile", **itself(steps=steps), **settings | changes)


def sinks(steps: int = 3, ratio: float = 16.0, **changes: Any) -> Graph:
    """A run that is measured, and what the Sink Inspector says of it."""
    return demo() | recorded("measured", "source", steps=steps, what="statistics", **changes) | {
        "decode": node("VAEDecode", samples=["measured", 1], vae=["demo", 2]),
        "inspect": node(
            "VDiT_SinkInspector", record=["measured", 2], frames=["decode", 0], ratio=ratio, participation=0.25,
            layer=-1, head=-1,
        ),
        "say": node("PreviewAny", source=["inspect", 4]),
        "figures": node("PreviewAny", source=["inspect", 5]),
    }  # fmt: skip


#: The nodes that edit a model's attention: what each is called in the graphs of `edited`.
EDITORS = ("transfer", "live", "sparse", "sink control")


def edited(editor: str, between: dict[str, Any] | None = None, seed: int = 7, steps: int = 2) -> Graph:
    """The target sampled by a model that one of EDITORS edits; a small video.

    between: a node that stands between it and the sampler, whose model input is filled in.
    """
    batch: dict[str, Any] = {}
    if editor == "transfer":
        graph = demo() | recorded("source store", "source", seed, steps)
        graph[editor] = node(
            "VDiT_TransferAttention", model=["demo", 0], store=["source store", 0], gap=0.001, **where()
        )
    elif editor == "live":
        graph = demo() | {editor: live()["live"]}
        batch = {"positive": [editor, 1], "latent_image": [editor, 2]}
    elif editor == "sparse":
        graph = demo() | {editor: sparse(["demo", 0])}
    else:
        graph = sinks(steps=steps, seed=seed, ratio=1.5)
        graph["inspect"]["inputs"]["participation"] = 0.0
        graph[editor] = node(
            "VDiT_SinkControl", model=["demo", 0], sinks=["inspect", 0], action="mask", of="the sinks", cap=1.0,
            random_seed=0,
        )  # fmt: skip
    model = [editor, 0]
    if between is not None:
        graph["between"] = between | {"inputs": between["inputs"] | {"model": model}}
        model = ["between", 0]
    graph["empty"]["inputs"] |= {"width": 64, "height": 64, "length": 5}
    graph["sample"] = sampler(model, "target", seed, steps, **batch)
    graph["save"] = node("SaveLatent", samples=["sample", 0], filename_prefix="edited")
    return graph


#: Nodes of other packs, and whether self-attention still comes by; see stand_ins.
TENANTS = {
    "self": (node("StandIn_AttentionBypass", what="self"), False),
    "cross": (node("StandIn_AttentionBypass", what="cross"), True),
    "both": (node("StandIn_AttentionBypass", what="both"), False),
    "forward": (node("StandIn_ForwardReplacement"), False),
    "temporary forward": (node("StandIn_TemporaryForward"), False),
}

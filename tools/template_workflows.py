"""The examples that are ComfyUI's own templates with the pack's nodes put in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from official_template import Official
from workflow_graph import files_of
from workflow_parts import SOURCE, TARGET

SNOW = "A car is driving on the highway, snow begins to fall"
GGUF = (
    "**GGUF**: put *Unet Loader (GGUF)* of ComfyUI-GGUF where Load Diffusion Model is. The pack's nodes take its "
    "model like any other."
)
LOOK = (
    "**Left** the source, **right** the target: the same path and camera, another prompt.\n\nIf the target looks too "
    "much like the source, lower Live Transfer's **strength**, or connect a Layer Mask and choose fewer layers. "
    "Bypass Live Transfer (Ctrl+B), and only the source is made."
)
START = "**First choose a picture** in Load Image."
PICTURE = "The picture of this workflow in the template list shows the demo model."
LABELS = "source\nwith the source's attention"


def _note(flow: Official, title: str, files: tuple[str, ...], text: str, place: tuple[float, float]) -> None:
    body = f"## {title}\n\n{files_of(*files)}\n\n{text}\n\n{GGUF}\n\n{PICTURE}"
    flow.note("Read me", body, place, (460, 760))


def _prompts(flow: Official, target: str) -> dict[str, Any]:
    """The template's prompt becomes the source's; another of its kind is the target's."""
    texts = [node for node in flow.graph["nodes"] if node["type"] == "CLIPTextEncode"]
    source = next(node for node in texts if "Positive" in node["title"])
    source["widgets_values"] = [SOURCE]
    source["title"] = "Source prompt"
    left, top = source["pos"]
    source["size"][1] = min(source["size"][1], 190)
    other = flow.twin(source, "Target prompt", (left, top + source["size"][1] + 60))
    other["widgets_values"] = [target]
    return other


def _apart(flow: Official) -> None:
    """Nodes have more fields today than when the template was laid out: what is below another moves down."""
    flow.find("SaveVideo")["pos"][1] += 80


def _live(flow: Official, sampler: dict[str, Any], source: Any, target: Any, latent: Any, title: str | None,
          place: tuple[float, float]) -> None:  # fmt: skip
    """Live Transfer before a sampler."""
    live = flow.add("VDiT_LiveTransfer", title, place, (340, 310))
    flow.link(*flow.origin(sampler, "model"), live, "model")
    for name, origin in (("source", source), ("target", target), ("latent", latent)):
        flow.link(*origin, live, name)
    flow.link(live, 0, sampler, "model")
    flow.link(live, 1, sampler, "positive")
    flow.link(live, 2, sampler, "latent_image")


def _both(flow: Official, place: tuple[float, float]) -> None:
    """Two decoded videos in the place of one."""
    decode, video = flow.find("VAEDecode"), flow.find("CreateVideo")
    latent, (left, top) = flow.origin(decode, "samples"), place
    decode["pos"], decode["title"] = [left + 280, top], "Source"
    other = flow.twin(decode, "Target", (left + 280, top + 170))
    for n, one in enumerate((decode, other)):
        name = ("source", "target")[n]
        picked = flow.add("LatentFromBatch", f"{n}: {name}", (left, top + 170 * n), (240, 110), batch_index=n, length=1)
        flow.link(*latent, picked, "samples")
        flow.link(picked, 0, one, "samples")
    shown = flow.add("VDiT_SideBySide", None, (left + 540, top), (300, 260), labels=LABELS)
    flow.link(decode, 0, shown, "first")
    flow.link(other, 0, shown, "second")
    flow.link(shown, 0, video, "images")


def t2v_1_3b(file: Path, name: str) -> Official:
    """Wan2.1 text to video, 1.3B."""
    flow = Official(file, name)
    target = _prompts(flow, TARGET)
    flow.shift(770, 400)
    flow.shift(1500, 880)
    negative = next(n for n in flow.graph["nodes"] if "Negative" in str(n.get("title")))
    negative["pos"][1] = target["pos"][1] + target["size"][1] + 60
    flow.graph["groups"][0]["bounding"][3] += 220
    sampler = flow.find("KSampler")
    flow.find("ModelSamplingSD3")["pos"] = [780, 40]
    _live(flow, sampler, flow.origin(sampler, "positive"), (target, 0), flow.origin(sampler, "latent_image"), None,
          (780, 160))  # fmt: skip
    _both(flow, (1520, 40))
    _apart(flow)
    files = ("wan2.1_t2v_1.3B_fp16.safetensors", "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "wan_2.1_vae.safetensors")
    _note(flow, "ComfyUI's Wan2.1 template, with Live Transfer", files, f"{LOOK}\n\nNothing is stored. The batch holds "
          "two videos and needs the memory of two.", (-640, -30))  # fmt: skip
    return flow


def i2v_14b(file: Path, name: str) -> Official:
    """Wan2.1 image to video, 14B."""
    flow = Official(file, name)
    target = _prompts(flow, SNOW)
    for node in flow.graph["nodes"]:
        if 400 <= node["pos"][0] < 860 and node["pos"][1] >= 280 and node is not target:
            node["pos"][1] += 240
    flow.graph["groups"][2]["bounding"][3] += 240
    flow.graph["groups"][3]["bounding"][1] += 240
    flow.shift(860, 800)
    flow.shift(1900, 880)
    first = flow.find("WanImageToVideo")
    first["title"] = "Source"
    second = flow.twin(first, "Target: the same size", (900, first["pos"][1]))
    flow.link(target, 0, second, "positive")
    sampler = flow.find("KSampler")
    flow.find("ModelSamplingSD3")["pos"] = [1260, 30]
    _live(flow, sampler, (first, 0), (second, 0), (first, 2), None, (1260, 140))
    _both(flow, (2020, 40))
    _apart(flow)
    for node in flow.graph["nodes"]:
        if node["pos"][0] < 400 and node["pos"][1] >= 450:
            node["pos"][1] += 50
    flow.graph["groups"][0]["bounding"][3] += 50
    flow.graph["groups"][1]["bounding"][1] += 50
    _note(
        flow,
        "ComfyUI's Wan2.1 image-to-video template, with Live Transfer",
        ("wan2.1_i2v_480p_14B_fp16.safetensors", "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "wan_2.1_vae.safetensors",
         "clip_vision_h.safetensors"),
        f"{START}\n\n{LOOK}\n\nBoth videos begin with the same picture. Keep both *WanImageToVideo* alike.",
        (-500, 0),
    )  # fmt: skip
    return flow


def ti2v_5b(file: Path, name: str) -> Official:
    """Wan2.2, 5B."""
    flow = Official(file, name)
    target = _prompts(flow, TARGET)
    for node in flow.graph["nodes"]:
        if 370 <= node["pos"][0] < 850 and node["pos"][1] >= 260 and node is not target:
            node["pos"][1] += 220
    flow.graph["groups"][1]["bounding"][3] += 220
    flow.graph["groups"][3]["bounding"][1] += 220
    flow.shift(850, 400)
    flow.shift(1580, 880)
    sampler = flow.find("KSampler")
    flow.find("ModelSamplingSD3")["pos"] = [860, 20]
    _live(flow, sampler, flow.origin(sampler, "positive"), (target, 0), flow.origin(sampler, "latent_image"), None,
          (860, 130))  # fmt: skip
    _both(flow, (1600, 40))
    _apart(flow)
    files = ("wan2.2_ti2v_5B_fp16.safetensors", "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "wan2.2_vae.safetensors")
    _note(flow, "ComfyUI's Wan2.2 5B template, with Live Transfer", files, f"{LOOK}\n\nFor image to video enable the "
          "template's Load Image (Ctrl+B): both videos then begin with that picture.", (-560, -20))  # fmt: skip
    return flow


def _experts(flow: Official, room: float) -> list[dict[str, Any]]:
    """The samplers of the two experts, the first one first, with room before them and the shifts below each other."""
    shifts = [flow.find("ModelSamplingSD3", n) for n in (0, 1)]
    left = shifts[0]["pos"][0]
    flow.shift(left - 10, room)
    for node, top in zip(shifts, (-80, 320), strict=True):
        node["pos"] = [left, top]
    return [flow.find("KSamplerAdvanced", n) for n in (0, 1)]


def _switch(kind: str) -> tuple[str, ...]:
    version = "v1.1" if kind == "t2v" else "v1"
    return (
        *(f"wan2.2_{kind}_{part}_noise_14B_fp8_scaled.safetensors" for part in ("high", "low")),
        *(f"wan2.2_{kind}_lightx2v_4steps_lora_{version}_{part}_noise.safetensors" for part in ("high", "low")),
        "umt5_xxl_fp8_e4m3fn_scaled.safetensors",
        "wan_2.1_vae.safetensors",
    )


INSIDE = (
    "\n\nThe pack's nodes are inside the subgraph (open it with the button at its top): a Live Transfer before each "
    "expert's sampler, with the same prompts. The second sampler goes on from the first one's latent.\n\nThe switch "
    "for the **4-step LoRA** works as in the template: 4 steps at cfg 1."
)


def t2v_14b(file: Path, name: str) -> Official:
    """Wan2.2 text to video, two experts."""
    flow = Official(file, name)
    target = _prompts(flow, TARGET)
    flow.ask("text", "target", "target prompt", target, "text")
    first, second = _experts(flow, 700)
    source, empty = flow.origin(first, "positive"), flow.origin(first, "latent_image")
    left, leftover = first["pos"][0] - 400, flow.origin(second, "latent_image")
    _live(flow, first, source, (target, 0), empty, "Live Transfer, high noise", (left, -80))
    _live(flow, second, source, (target, 0), empty, "Live Transfer, low noise", (left, 320))
    flow.link(*leftover, second, "latent_image")
    flow.shift(3500, 720, 700)
    _both(flow, (left + 400, 700))
    _note(flow, "ComfyUI's Wan2.2 template, with Live Transfer", _switch("t2v"), LOOK + INSIDE, (-750, -270))
    return flow


def i2v_experts(file: Path, name: str) -> Official:
    """Wan2.2 image to video, two experts."""
    flow = Official(file, name)
    target = _prompts(flow, SNOW)
    flow.ask("text", "target", "target prompt", target, "text")
    image = flow.find("WanImageToVideo")
    image["title"] = "Source"
    other = flow.twin(image, "Target: the same size", (image["pos"][0], 1160))
    flow.link(target, 0, other, "positive")
    first, second = _experts(flow, 700)
    left, leftover = first["pos"][0] - 400, flow.origin(second, "latent_image")
    _live(flow, first, (image, 0), (other, 0), (image, 2), "Live Transfer, high noise", (left, -80))
    _live(flow, second, (image, 0), (other, 0), (image, 2), "Live Transfer, low noise", (left, 320))
    flow.link(*leftover, second, "latent_image")
    flow.shift(3300, 660, 700)
    _both(flow, (left + 400, 740))
    _note(
        flow,
        "ComfyUI's Wan2.2 template, with Live Transfer",
        _switch("i2v"),
        f"{START}\n\n{LOOK}{INSIDE}",
        (-560, -420),
    )
    return flow


SPARE = (
    "**Sparse Attention** computes 30 % of each map, spent on the heads that need it by the published profile of this "
    "model (*published profile*: auto). Lower **keep** is faster and changes more; 100 is the template itself.\n\n"
    "The profile tells how many keys a head needs for 95 % of its attention, not what your video looks like: compare "
    "with the node bypassed (Ctrl+B). *Sparsity Profile* measures one for your own model (example 11)."
)


def sparse_t2v(file: Path, name: str) -> Official:
    """Wan2.1 1.3B, with Sparse Attention."""
    flow = Official(file, name)
    _named(flow)
    flow.shift(770, 400)
    flow.find("ModelSamplingSD3")["pos"] = [780, 40]
    _sparse(flow, flow.find("KSampler"), None, (780, 160))
    _apart(flow)
    files = ("wan2.1_t2v_1.3B_fp16.safetensors", "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "wan_2.1_vae.safetensors")
    _note(flow, "ComfyUI's Wan2.1 template, faster", files, SPARE, (-640, -30))
    return flow


def sparse_i2v(file: Path, name: str) -> Official:
    """Wan2.2 image to video, with Sparse Attention in both experts."""
    flow = Official(file, name)
    _named(flow)
    samplers = _experts(flow, 700)
    for sampler, part, top in zip(samplers, ("high", "low"), (-80, 480), strict=True):
        _sparse(flow, sampler, f"Sparse Attention, {part} noise", (samplers[0]["pos"][0] - 400, top))
    text = f"{START}\n\n{SPARE}\n\nEach expert has a node of its own, inside the subgraph, and a profile of its own."
    _note(flow, "ComfyUI's Wan2.2 template, faster", _switch("i2v"), text, (-560, -420))
    return flow


def _named(flow: Official) -> None:
    """The prompt of the other examples."""
    texts = [node for node in flow.graph["nodes"] if node["type"] == "CLIPTextEncode"]
    next(node for node in texts if "Positive" in node["title"])["widgets_values"] = [SOURCE]
    for node in flow.workflow["nodes"]:
        if flow.subgraph and node["type"] == flow.subgraph["id"] and node["widgets_values"]:
            node["widgets_values"][0] = SOURCE


def _sparse(flow: Official, sampler: dict[str, Any], title: str | None, place: tuple[float, float]) -> None:
    node = flow.add("VDiT_SparseAttention", title, place, (340, 500))
    flow.link(*flow.origin(sampler, "model"), node, "model")
    flow.link(node, 0, sampler, "model")


#: Number: (name, ComfyUI's template, what is put in).
TEMPLATES = {
    3: ("Live transfer - Wan2.1 T2V 1.3B", "text_to_video_wan", t2v_1_3b),
    14: ("Live transfer - Wan2.2 T2V 14B", "video_wan2_2_14B_t2v", t2v_14b),
    15: ("Live transfer - Wan2.2 I2V 14B", "video_wan2_2_14B_i2v", i2v_experts),
    16: ("Live transfer - Wan2.2 5B", "video_wan2_2_5B_ti2v", ti2v_5b),
    22: ("Live transfer - Wan2.1 I2V 14B", "image_to_video_wan", i2v_14b),
    24: ("Sparse attention, published profile - Wan2.1 T2V 1.3B", "text_to_video_wan", sparse_t2v),
    25: ("Sparse attention, published profile - Wan2.2 I2V 14B", "video_wan2_2_14B_i2v", sparse_i2v),
}

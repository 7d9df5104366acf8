"""The examples that are ComfyUI's own templates with the pack's nodes put in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from official_template import Official, Place
from workflow_graph import files_of
from workflow_parts import LABELS, PICTURE, SOURCE, TARGET

SNOW = f"{SOURCE}, snow begins to fall"
WAN21 = ("wan2.1_t2v_1.3B_fp16.safetensors", "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "wan_2.1_vae.safetensors")
#: px of room that another prompt takes.
PROMPT = 240
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


def _note(flow: Official, title: str, files: tuple[str, ...], text: str, place: Place) -> None:
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
          place: Place) -> None:  # fmt: skip
    """Live Transfer before a sampler."""
    live = flow.add("VDiT_LiveTransfer", title, place, (340, 310))
    flow.link(*flow.origin(sampler, "model"), live, "model")
    for name, origin in (("source", source), ("target", target), ("latent", latent)):
        flow.link(*origin, live, name)
    flow.link(live, 0, sampler, "model")
    flow.link(live, 1, sampler, "positive")
    flow.link(live, 2, sampler, "latent_image")


def _both(flow: Official, place: Place) -> None:
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
    shown = flow.add("VDiT_SideBySide", None, (left + 540, top), (300, 260), labels="\n".join(LABELS))
    flow.link(decode, 0, shown, "first")
    flow.link(other, 0, shown, "second")
    flow.link(shown, 0, video, "images")


def _one_sampler(flow: Official, source: Any, target: Any, latent: Any, live: Place, both: Place) -> None:
    """Live Transfer before the template's sampler, and both videos behind it. live, both: where they are put."""
    flow.find("ModelSamplingSD3")["pos"] = [live[0], live[1] - 110]
    _live(flow, flow.find("KSampler"), source, target, latent, None, live)
    _both(flow, both)
    _apart(flow)


def _from_prompts(flow: Official, target: dict[str, Any], live: Place, both: Place) -> None:
    """`_one_sampler` with what the template's sampler has now, and the target's prompt."""
    sampler = flow.find("KSampler")
    source, latent = flow.origin(sampler, "positive"), flow.origin(sampler, "latent_image")
    _one_sampler(flow, source, (target, 0), latent, live, both)


def t2v_1_3b(file: Path, name: str) -> Official:
    """Wan2.1 text to video, 1.3B."""
    flow = Official(file, name)
    target = _prompts(flow, TARGET)
    flow.lower(300, 770, 250, PROMPT, but=target)
    flow.shift(770, 400)
    flow.shift(1500, 880)
    _from_prompts(flow, target, (780, 150), (1520, 40))
    text = f"{LOOK}\n\nNothing is stored. The batch holds two videos and needs the memory of two."
    _note(flow, "ComfyUI's Wan2.1 template, with Live Transfer", WAN21, text, (-640, -30))
    return flow


def i2v_14b(file: Path, name: str) -> Official:
    """Wan2.1 image to video, 14B."""
    flow = Official(file, name)
    target = _prompts(flow, SNOW)
    flow.lower(400, 860, 280, PROMPT, but=target)
    flow.lower(0, 400, 450, 50)
    flow.shift(860, 800)
    flow.shift(1900, 880)
    first, second = _beginnings(flow, target, (900, flow.find("WanImageToVideo")["pos"][1]))
    _one_sampler(flow, (first, 0), (second, 0), (first, 2), (1260, 140), (2020, 40))
    files = ("wan2.1_i2v_480p_14B_fp16.safetensors", *WAN21[1:], "clip_vision_h.safetensors")
    text = f"{START}\n\n{LOOK}\n\nBoth videos begin with the same picture. Keep both *WanImageToVideo* alike."
    _note(flow, "ComfyUI's Wan2.1 image-to-video template, with Live Transfer", files, text, (-500, 0))
    return flow


def ti2v_5b(file: Path, name: str) -> Official:
    """Wan2.2, 5B."""
    flow = Official(file, name)
    target = _prompts(flow, TARGET)
    flow.lower(370, 850, 260, PROMPT, but=target)
    flow.shift(850, 400)
    flow.shift(1580, 880)
    _from_prompts(flow, target, (860, 130), (1600, 40))
    files = ("wan2.2_ti2v_5B_fp16.safetensors", WAN21[1], "wan2.2_vae.safetensors")
    text = (
        f"{LOOK}\n\nFor image to video enable the template's Load Image (Ctrl+B): both videos then begin with that "
        "picture."
    )
    _note(flow, "ComfyUI's Wan2.2 5B template, with Live Transfer", files, text, (-560, -20))
    return flow


def _beginnings(flow: Official, target: dict[str, Any], place: Place) -> tuple[dict[str, Any], dict[str, Any]]:
    """The template's first frame for the source, and the same for the target's prompt."""
    first = flow.find("WanImageToVideo")
    first["title"] = "Source"
    second = flow.twin(first, "Target: the same size", place)
    flow.link(target, 0, second, "positive")
    return first, second


def _experts(flow: Official) -> list[dict[str, Any]]:
    """The samplers of the two experts, the first one first, with room before them and the shifts below each other."""
    shifts = [flow.find("ModelSamplingSD3", n) for n in (0, 1)]
    left = shifts[0]["pos"][0]
    flow.shift(left - 10, 700)
    for node, top in zip(shifts, (-80, 320), strict=True):
        node["pos"] = [left, top]
    return [flow.find("KSamplerAdvanced", n) for n in (0, 1)]


def _two_samplers(flow: Official, source: Any, target: Any, latent: Any, behind: Place, room: float) -> None:
    """A Live Transfer before each expert's sampler, and both videos behind. behind: from where on what follows makes
    room for these, and how far down they are."""
    first, second = _experts(flow)
    left, leftover = first["pos"][0] - 400, flow.origin(second, "latent_image")
    _live(flow, first, source, target, latent, "Live Transfer, high noise", (left, -80))
    _live(flow, second, source, target, latent, "Live Transfer, low noise", (left, 320))
    flow.link(*leftover, second, "latent_image")
    flow.shift(behind[0], room, 700)
    _both(flow, (left + 400, behind[1]))


def _switch(kind: str) -> tuple[str, ...]:
    version = "v1.1" if kind == "t2v" else "v1"
    return (
        *(f"wan2.2_{kind}_{part}_noise_14B_fp8_scaled.safetensors" for part in ("high", "low")),
        *(f"wan2.2_{kind}_lightx2v_4steps_lora_{version}_{part}_noise.safetensors" for part in ("high", "low")),
        *WAN21[1:],
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
    sampler = flow.find("KSamplerAdvanced")
    source, empty = flow.origin(sampler, "positive"), flow.origin(sampler, "latent_image")
    _two_samplers(flow, source, (target, 0), empty, (3500, 700), 720)
    _note(flow, "ComfyUI's Wan2.2 template, with Live Transfer", _switch("t2v"), LOOK + INSIDE, (-750, -270))
    return flow


def i2v_experts(file: Path, name: str) -> Official:
    """Wan2.2 image to video, two experts."""
    flow = Official(file, name)
    target = _prompts(flow, SNOW)
    flow.ask("text", "target", "target prompt", target, "text")
    first, second = _beginnings(flow, target, (flow.find("WanImageToVideo")["pos"][0], 1160))
    _two_samplers(flow, (first, 0), (second, 0), (first, 2), (3300, 740), 660)
    text = f"{START}\n\n{LOOK}{INSIDE}"
    _note(flow, "ComfyUI's Wan2.2 template, with Live Transfer", _switch("i2v"), text, (-560, -420))
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
    _note(flow, "ComfyUI's Wan2.1 template, faster", WAN21, SPARE, (-640, -30))
    return flow


def sparse_i2v(file: Path, name: str) -> Official:
    """Wan2.2 image to video, with Sparse Attention in both experts."""
    flow = Official(file, name)
    _named(flow)
    samplers = _experts(flow)
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


def _sparse(flow: Official, sampler: dict[str, Any], title: str | None, place: Place) -> None:
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

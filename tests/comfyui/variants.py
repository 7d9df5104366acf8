"""Models and prompts of many kinds, for the checks of what may go wrong: other Wan classes' inputs, and what stock
nodes make of a model."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import comfy.hooks
import torch
from inside import SMALL, SOURCE, Absent, shallow, text, tiny

#: What most of these checks sample: deep enough to tell layers apart.
MODEL = shallow()


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def node(module: str, name: str, *settings: Any, model: Any = MODEL, **more: Any):
    """A model as a stock node changes it."""
    try:
        kind = getattr(importlib.import_module(f"comfy_extras.{module}"), name)
    except (ImportError, AttributeError):
        raise Absent(f"this ComfyUI has no {name}") from None
    if hasattr(kind, "execute"):
        return kind.execute(model, *settings, **more).result[0]
    return getattr(kind(), kind.FUNCTION)(model, *settings, **more)[0]


def lora(scale: float) -> dict[str, torch.Tensor]:
    """A LoRA of two layers' queries."""
    return {
        f"diffusion_model.blocks.{layer}.self_attn.q.{part}.weight": scale * random(*shape)
        for layer in (0, 3)
        for part, shape in (("lora_up", (256, 4)), ("lora_down", (4, 256)))
    }


def with_lora(model: Any = MODEL):
    import comfy.sd

    return comfy.sd.load_lora_for_models(model, None, lora(0.1), 1.0, 0.0)[0]


def hooked() -> list:
    """A prompt with a LoRA of its own."""
    return comfy.hooks.set_hooks_for_conditioning(SOURCE, comfy.hooks.create_hook_lora(lora(0.1), 1.0, 0.0))


def masked(left: bool) -> list:
    """A prompt for one half of the picture, computed on all of it."""
    mask = torch.zeros(1, SMALL[-2], SMALL[-1])
    mask[..., : SMALL[-1] // 2] = left
    mask[..., SMALL[-1] // 2 :] = not left
    return comfy.hooks.set_mask_for_conditioning(SOURCE, mask, "default", 1.0)


def windowed():
    """Context windows of two latent frames, all alike."""
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    settings = {"context_length": 2, "context_overlap": 0, "context_stride": 1, "context_schedule": "standard_static",
                "closed_loop": False, "fuse_method": "pyramid", "dim": 2, "freenoise": False}  # fmt: skip
    if "causal_window_fix" in inspect.signature(ContextWindowsManualNode.execute).parameters:
        settings["causal_window_fix"] = False
    return node("nodes_context_windows", "ContextWindowsManualNode", **settings)


def given(**more: Any) -> list:
    """A text for `tiny` with further inputs."""
    return [[text()[0][0], more]]


def image_to_video():
    return tiny(model_type="i2v", in_dim=36)


def first_last_frame():
    return tiny(model_type="i2v", in_dim=36, flf_pos_embed_token_number=514)


def wan22_5b():
    return tiny(in_dim=48, out_dim=48)


def wan22_i2v():
    """Wan2.2's I2V experts: picture channels in a T2V network."""
    return tiny(in_dim=36)


def with_references():
    return tiny(in_dim_ref_conv=16)


class Seen:
    """A CLIP vision model's output."""

    def __init__(self, pictures: int = 1) -> None:
        self.penultimate_hidden_states = random(1, 257 * pictures, 1280)


PICTURE = 0.5 * random(1, *SMALL)

"""Writes the trained parts as the files that ship: float16, Wan2.1's key names, and the configs diffusers asks for."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from safetensors.torch import save_file
from torch import Tensor

from vdit_core.demo.probe import AttributeProbe
from vdit_core.tiny_wan.files import PROBE, TEXT_ENCODER, TRANSFORMER, VAE
from vdit_core.tiny_wan.text import WIDTH, TextEncoder

from .wan_names import transformer_names, vae_names


def _half(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.to("cpu", torch.float16, copy=True).contiguous() for name, value in state.items()}


def export(
    transformer: WanTransformer3DModel, vae: AutoencoderKLWan, probe: AttributeProbe, text: TextEncoder, folder: Path
) -> None:
    """Write the four weight files and `diffusers/`'s configs."""
    folder.mkdir(parents=True, exist_ok=True)
    # ComfyUI infers Wan's sizes from the weights but takes 4096 for the text's; it reads this entry first.
    config = {"transformer": {"text_dim": WIDTH}}
    names = transformer_names(dict(transformer.named_parameters()))
    save_file(_half(names), folder / TRANSFORMER, metadata={"config": json.dumps(config)})
    save_file(_half(vae_names(dict(vae.named_parameters()))), folder / VAE)
    save_file(_half(probe.state_dict()), folder / PROBE)
    text.save(folder / TEXT_ENCODER)
    for model, name in ((transformer, "transformer"), (vae, "vae")):
        model.save_config(folder / "diffusers" / name)

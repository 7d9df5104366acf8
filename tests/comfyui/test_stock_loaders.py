"""The demo model's files in the stock ComfyUI: the same clip as in diffusers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vdit_core.tiny_wan.files import GUIDANCE, SHIFT, STEPS, WEIGHTS

SCRIPT = Path(__file__).with_name("stock_graph.py")
PROMPT, SEED = "A red truck is driving on the grass", 7


@pytest.fixture(scope="module")
def comfy_result(comfyui, demo_model, tmp_path_factory) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("comfyui")
    contexts = demo_model.text.encode([PROMPT, ""])
    save_file(
        {"positive": contexts[:1].clone(), "negative": contexts[1:].clone(), "noise": demo_model.noise([SEED])},
        folder / "given.safetensors",
    )
    files = folder / "given.safetensors", folder / "result.safetensors"
    command = [comfyui.python, SCRIPT, comfyui.folder, WEIGHTS, *files, STEPS, GUIDANCE, SHIFT, SEED]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600, cwd=folder)
    assert run.returncode == 0, run.stderr[-3000:]
    return load_file(folder / "result.safetensors")


def test_stock_sampling_agrees_with_diffusers(comfy_result, demo_model):
    """KSampler euler / simple: same noise, same levels, same latents up to rounding."""
    ours = demo_model.sample([PROMPT], [SEED])
    vae = demo_model.pipe.vae
    mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
    torch.testing.assert_close(comfy_result["samples"], ours * std + mean, rtol=0, atol=5e-3)


def test_stock_decoding_agrees_with_diffusers(comfy_result, demo_model):
    ours = demo_model.generate([PROMPT], [SEED])[0].permute(1, 2, 3, 0)
    theirs = comfy_result["frames"].squeeze(0)
    assert theirs.shape == ours.shape
    assert (theirs - ours).abs().mean() < 1e-3

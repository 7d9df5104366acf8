"""Forward passes of a model of Wan2.1-1.3B's shape with random weights, through the diffusers host."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from diffusers import WanTransformer3DModel

sys.path.insert(0, str(Path(__file__).parents[1]))

from vdit_core.call import Interceptor
from vdit_core.hosts.diffusers import attach

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
WAN_1_3B = {
    "patch_size": (1, 2, 2), "num_attention_heads": 12, "attention_head_dim": 128, "in_channels": 16,
    "out_channels": 16, "text_dim": 4096, "freq_dim": 256, "ffn_dim": 8960, "num_layers": 30,
}  # fmt: skip


class Forward:
    """A model with random inputs of a grid, and the little of a pipeline that the host asks for.

    grid: frames, height and width in tokens. layers: fewer than the model's 30 for a quick look.
    """

    def __init__(self, grid: tuple[int, int, int], layers: int = 30) -> None:
        dtype = torch.bfloat16 if DEVICE == "cuda" else torch.float32
        with torch.device(DEVICE):
            self.transformer = WanTransformer3DModel(**WAN_1_3B | {"num_layers": layers}).eval()
            self.latents = torch.randn(1, 16, grid[0], 2 * grid[1], 2 * grid[2], dtype=dtype)
            self.text = torch.randn(1, 512, 4096, dtype=dtype)
        for name, parameter in self.transformer.named_parameters():  # as from_pretrained does
            if not any(kept in name for kept in WanTransformer3DModel._keep_in_fp32_modules):
                parameter.data = parameter.data.to(dtype)
        self.do_classifier_free_guidance = False

    def seconds(self, *interceptors: Interceptor, rows: int = 1, steps: int = 1) -> float:
        """What a step takes of a run that begins and ends with these; `rows` videos at once."""
        levels = torch.linspace(1, 0, steps + 1)
        self.scheduler = SimpleNamespace(timesteps=1000 * levels[:-1], sigmas=levels, config={})
        latents, text = (x.expand(rows, *[-1] * (x.dim() - 1)).contiguous() for x in (self.latents, self.text))
        synchronize()
        start = time.perf_counter()
        with attach(self, *interceptors), self.transformer.cache_context("cond"):
            for timestep in self.scheduler.timesteps.to(DEVICE):
                self.transformer(latents, timestep.expand(rows), text, return_dict=False)
        synchronize()
        return (time.perf_counter() - start) / steps


def synchronize() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def device_name() -> str:
    return f"{torch.cuda.get_device_name() if DEVICE == 'cuda' else 'CPU'}, torch {torch.__version__}"

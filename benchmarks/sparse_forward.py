"""One forward pass of a model of Wan2.1-1.3B's shape (random weights), dense and sparse, through the diffusers host.

    python benchmarks/sparse_forward.py [--grid 21 30 52] [--density .2] [--dense-layers 2] [--repeats 5]

Prints the median seconds of both, in turns, and their ratio. Dense attention is PyTorch's fastest (cuDNN where it is).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from diffusers import WanTransformer3DModel
from torch.nn.attention import SDPBackend, sdpa_kernel

sys.path.insert(0, str(Path(__file__).parents[1]))

from vdit_core.call import Interceptor
from vdit_core.hosts.diffusers import attach
from vdit_core.selection import LayerMask
from vdit_core.sparse.settings import Settings
from vdit_core.sparse.sparse_attention import SparseAttention

WAN_1_3B = {
    "patch_size": (1, 2, 2), "num_attention_heads": 12, "attention_head_dim": 128, "in_channels": 16,
    "out_channels": 16, "text_dim": 4096, "freq_dim": 256, "ffn_dim": 8960, "num_layers": 30,
}  # fmt: skip


class Forward:
    """A model with random inputs of a grid, and the little of a pipeline that the host asks for."""

    def __init__(self, grid: tuple[int, int, int], device: str) -> None:
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        with torch.device(device):
            self.transformer = WanTransformer3DModel(**WAN_1_3B).eval()
            self.latents = torch.randn(1, 16, grid[0], 2 * grid[1], 2 * grid[2], dtype=dtype)
            self.text = torch.randn(1, 512, 4096, dtype=dtype)
            self.timestep = torch.full((1,), 500.0)
        for name, parameter in self.transformer.named_parameters():  # as from_pretrained does
            if not any(kept in name for kept in WanTransformer3DModel._keep_in_fp32_modules):
                parameter.data = parameter.data.to(dtype)
        levels = torch.tensor([0.5, 0.0])
        self.scheduler = SimpleNamespace(timesteps=self.timestep.cpu(), sigmas=levels)
        self.do_classifier_free_guidance = False

    def seconds(self, *editors: Interceptor) -> float:
        with attach(self, *editors), self.transformer.cache_context("cond"):
            synchronize()
            start = time.perf_counter()
            self.transformer(self.latents, self.timestep, self.text, return_dict=False)
            synchronize()
            return time.perf_counter() - start


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--grid", type=int, nargs=3, default=(21, 30, 52))
    parser.add_argument("--density", type=float, default=0.2)
    parser.add_argument("--dense-layers", type=int, default=2)
    parser.add_argument("--method", default="top blocks")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_grad_enabled(False)
    forward = Forward(options.grid, device)
    editor = SparseAttention(
        Settings(
            options.method,
            options.density,
            dense_layers=LayerMask(f"0-{options.dense_layers - 1}" if options.dense_layers else "none"),
            dense_first=0.0,
            minimum_tokens=0,
        )
    )
    backends = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
    with sdpa_kernel(backends, set_priority=True):
        for warm in ([], [editor], [editor]):
            forward.seconds(*warm)
        turns = [(forward.seconds(), forward.seconds(editor)) for _ in range(options.repeats)]
    dense, sparse = (statistics.median(turn[side] for turn in turns) for side in (0, 1))
    ratio = statistics.median(before / after for before, after in turns)
    frames, height, width = options.grid
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(
        f"{name}, torch {torch.__version__}; {frames} x {height} x {width} = {frames * height * width} tokens, "
        f"density {options.density:g}, {options.dense_layers} layers dense: {1000 * dense:.0f} ms dense, "
        f"{1000 * sparse:.0f} ms sparse, ratio {ratio:.2f} ({options.repeats} turns). {editor.report}"
    )


if __name__ == "__main__":
    main()

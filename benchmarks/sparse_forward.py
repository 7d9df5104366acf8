"""One forward pass of a model of Wan2.1-1.3B's shape (random weights), dense and sparse, through the diffusers host.

    python benchmarks/sparse_forward.py [--grid 21 30 52] [--density .2] [--dense-layers 2] [--repeats 5]

Prints the median seconds of both, in turns, and their ratio. Dense attention is PyTorch's fastest (cuDNN where it is).
"""

from __future__ import annotations

import argparse
import statistics

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from wan_forward import Forward, device_name

from vdit_core.selection import LayerMask
from vdit_core.sparse.config import SparseConfig
from vdit_core.sparse.sparse_attention import SparseAttention


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--grid", type=int, nargs=3, default=(21, 30, 52))
    parser.add_argument("--density", type=float, default=0.2)
    parser.add_argument("--dense-layers", type=int, default=2)
    parser.add_argument("--method", default="block top-k")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    forward = Forward(options.grid)
    editor = SparseAttention(
        SparseConfig(
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
    print(
        f"{device_name()}; {frames} x {height} x {width} = {frames * height * width} tokens, "
        f"density {options.density:g}, {options.dense_layers} layers dense: {1000 * dense:.0f} ms dense, "
        f"{1000 * sparse:.0f} ms sparse, ratio {ratio:.2f} ({options.repeats} turns). {editor.report}"
    )


if __name__ == "__main__":
    main()

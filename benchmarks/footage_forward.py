"""What a step of an edit costs on a model of Wan2.1-1.3B's shape (random weights), through the diffusers host.

    python benchmarks/footage_forward.py [--grid 21 30 52] [--repeats 3]

An edit computes the clip and its target in each step. Prints the median seconds of one video, and of both: each with
its own maps, with the clip's, and with sparse attention besides; all in turns.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from wan_forward import Forward, device_name

from vdit_core.reporting.tables import markdown
from vdit_core.selection import LayerMask
from vdit_core.sparse.config import SparseConfig
from vdit_core.sparse.sparse_attention import SparseAttention
from vdit_core.transfer import LiveTransfer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--grid", type=int, nargs=3, default=(21, 30, 52))
    parser.add_argument("--density", type=float, default=0.2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    forward = Forward(options.grid)
    live = LiveTransfer()
    sparse = SparseAttention(
        SparseConfig(density=options.density, dense_layers=LayerMask("0-1"), dense_first=0.0, minimum_tokens=0)
    )
    ways: dict[str, Callable[[], float]] = {
        "one video": lambda: forward.seconds(rows=1),
        "clip and target, own maps": lambda: forward.seconds(rows=2),
        "clip and target, the clip's maps": lambda: forward.seconds(live, rows=2),
        f"the same, density {options.density:g}": lambda: forward.seconds(live, sparse, rows=2),
    }
    backends = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
    with sdpa_kernel(backends, set_priority=True):
        for way in (*ways.values(), *ways.values()):
            way()
        turns = [[way() for way in ways.values()] for _ in range(options.repeats)]
    seconds = [statistics.median(turn[n] for turn in turns) for n in range(len(ways))]
    frames, height, width = options.grid
    print(f"{device_name()}; {frames} x {height} x {width} = {frames * height * width} tokens, medians of {len(turns)}")
    rows = [[name, f"{1000 * s:.0f}", f"{s / seconds[0]:.2f}"] for name, s in zip(ways, seconds, strict=True)]
    print(markdown(["a step of", "ms", "ratio"], rows, aligned=True))


if __name__ == "__main__":
    main()

"""Block-sparse attention at Wan2.1's real sizes, everything included, against dense attention and its strongest peer.

    python benchmarks/sparse_attention.py [--grid 21 30 52] [--densities .1 .2 .3] [--heads 12]

Prints, for each density, medians in milliseconds of one run on random bfloat16 data: this pack's way from the host's
queries, keys and values to its output (tiling, choosing blocks, kernel), the kernel alone, comfy_kitchen's sol_attn at
the same share of blocks (its routing included) where it is installed, torch's flex_attention on the same blocks, and
the ratios. Then errors against float64 over the same blocks, beside those of PyTorch's attention.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from triton.testing import do_bench

sys.path.insert(0, str(Path(__file__).parents[1]))

from vdit_core.call import TokenGrid
from vdit_core.sparse.kernels.flex import Flex
from vdit_core.sparse.kernels.sol import Sol
from vdit_core.sparse.kernels.triton_blocks import TritonBlocks
from vdit_core.sparse.patterns import PATTERNS
from vdit_core.sparse.patterns.always import always
from vdit_core.sparse.tiled import tile
from vdit_core.sparse.tiling import tiles


def milliseconds(run: Callable[[], object]) -> float:
    return do_bench(run, warmup=50, rep=200, return_mode="median")


def sol_attention(q: Tensor, k: Tensor, v: Tensor, density: float) -> float | None:
    """comfy_kitchen's own time on tensors in its own layout, or None if it is not there."""
    if Sol().refuses(q) is not None:
        return None
    import comfy_kitchen

    own = [x.transpose(1, 2).contiguous() for x in (q, k, v)]
    return milliseconds(lambda: comfy_kitchen.sol_attn(*own, topk_ratio=density))


def errors(q: Tensor, k: Tensor, v: Tensor, plan, lists, out: Tensor, blocks: int = 16) -> tuple[float, float]:
    """Of some query blocks, relative to float64 over the same keys: the kernel's, and PyTorch's in bfloat16."""
    mask = lists.to_dense(plan.key_blocks).expand(1, q.shape[1], -1, -1)
    ours = theirs = norm = 0.0
    for n in range(blocks):
        head, block = n % q.shape[1], n * (plan.query_blocks - 1) // (blocks - 1)
        rows = plan.permutation[block * plan.queries : (block + 1) * plan.queries].long()
        places = mask[0, head, block].repeat_interleave(plan.keys)[: plan.grid.tokens]
        keys = plan.permutation[places].long()
        one = q[:, head : head + 1, rows], k[:, head : head + 1, keys], v[:, head : head + 1, keys]
        wide = [x.double() for x in one]
        exact = (wide[0] @ wide[1].mT / math.sqrt(q.shape[-1])).softmax(-1) @ wide[2]
        norm += float(exact.square().sum())
        ours += float((out[:, head : head + 1, rows].double() - exact).square().sum())
        theirs += float((scaled_dot_product_attention(*one).double() - exact).square().sum())
    return math.sqrt(ours / norm), math.sqrt(theirs / norm)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--grid", type=int, nargs=3, default=(21, 30, 52))
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--densities", type=float, nargs="+", default=(0.1, 0.2, 0.3))
    parser.add_argument("--pattern", choices=list(PATTERNS), default="block top-k")
    parser.add_argument("--flex", action="store_true", help="also time flex_attention, which compiles for a while")
    options = parser.parse_args()
    grid = TokenGrid(*options.grid)
    generator = torch.Generator("cuda").manual_seed(0)
    # As hosts hand them on: (rows, tokens, heads, head_dim) seen as (rows, heads, tokens, head_dim).
    shape = 3, 1, grid.tokens, options.heads, 128
    q, k, v = (x.transpose(1, 2) for x in torch.randn(shape, generator=generator, device="cuda").bfloat16())
    plan, pattern = tiles(grid, q.device), PATTERNS[options.pattern]
    kept, sharpness = always(plan), torch.ones(options.heads, device="cuda")
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        dense = milliseconds(lambda: scaled_dot_product_attention(q, k, v))
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}; {grid}, {options.heads} heads, {options.pattern}"
    )
    print(f"dense attention (cuDNN): {dense:.2f} ms\n")
    heads = ["density", "q and k", "all, ms", "kernel, ms", "sol_attn, ms", "flex, ms", "dense / all", "sol_attn / all"]
    print("| " + " | ".join([*heads, "error", "SDPA's"]) + " |\n" + "|---" * (len(heads) + 2) + "|")
    for density in options.densities:
        keep, sol = torch.full((options.heads,), density), sol_attention(q, k, v, density)
        for kernel in (TritonBlocks(int8=True), TritonBlocks()):

            def everything(kernel: TritonBlocks = kernel, keep: Tensor = keep) -> Tensor:
                call = tile(q, k, v, plan, kernel.int8)
                return kernel(call, pattern(call, keep, kept, sharpness), sharpness)

            call = tile(q, k, v, plan, kernel.int8)
            lists = pattern(call, keep, kept, sharpness)
            whole, alone = milliseconds(everything), milliseconds(partial(kernel, call, lists, sharpness))
            flex = None
            if options.flex and not kernel.int8:
                flex = milliseconds(partial(Flex(), call, lists, sharpness))
            error, sdpa = errors(q, k, v, plan, lists, everything())
            cells = [f"{density:g}", "int8" if kernel.int8 else "half", f"{whole:.2f}", f"{alone:.2f}"]
            cells += ["–" if x is None else f"{x:.2f}" for x in (sol, flex)]
            cells += [f"{dense / whole:.2f}", "–" if sol is None else f"{sol / whole:.2f}"]
            print("| " + " | ".join([*cells, f"{error:.1e}", f"{sdpa:.1e}"]) + " |", flush=True)


if __name__ == "__main__":
    main()

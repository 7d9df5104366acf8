"""Sparse attention on heads as uneven as real Wan's: one density for all against the published profile, at one mean.

    python benchmarks/real_densities.py [--grid 21 30 52] [--density .15] [--preset "Wan2.1 1.3B T2V"]
                                       [--values smooth|noise] [--layers 30]

The weights of real Wan are not here, its published densities are: the share of the keys that hold 95 % of each head's
attention. Queries and keys are made that have them. Those of a head are sums of waves along time, height and width, as
position embeddings are, so its attention falls with distance in each of them, by a mixture drawn for the head, and with
some noise, so that no two queries see the same; how sharply is found by bisection. The statistic that the pack shows
(`maps.needed`) checks them. Values are normal noise, or half of it and half slow waves in space and time, as nearby
tokens of a video are alike. Of noise, a head that looks everywhere loses most of its little output with most of its
keys.

Prints, for uniform density and for the profile, the milliseconds of all layers (medians) and two errors against dense
attention: the mean over heads of each head's relative error (root of the mean square), and that of all outputs taken
together. Then what it gains that dense heads are computed first.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

sys.path.insert(0, str(Path(__file__).parents[1]))

from vdit_core.call import TokenGrid
from vdit_core.maps.needed import needed_keys
from vdit_core.maps.wanted import Wanted
from vdit_core.sparse import presets
from vdit_core.sparse.kernels import Kernel, kernels_for
from vdit_core.sparse.patterns import block_top_k
from vdit_core.sparse.patterns.always import always
from vdit_core.sparse.tiled import tile
from vdit_core.sparse.tiling import tiles

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPE = torch.bfloat16 if DEVICE.type == "cuda" else torch.float32
PAIRS = (22, 21, 21)  # of waves along time, height and width: Wan's position embedding for heads 128 wide
SHARPEST, ROUNDS = 40.0, 14  # of the bisection
NOISE = 0.05  # of a feature, beside a wave's 1
CHECKED = 256  # queries
SLOW = 3.0  # radians that a smooth value turns from one side of the grid to the other


def features(grid: TokenGrid, heads: int, generator: torch.Generator) -> Tensor:
    """Unit vectors of all tokens for each head, float32 (heads, tokens, 128): alike where tokens are near."""
    places = torch.stack(torch.meshgrid(*map(torch.arange, (grid.frames, grid.height, grid.width)), indexing="ij"))
    shares = torch.distributions.Dirichlet(torch.ones(3)).sample((heads,))  # what of it is time, height and width
    parts = []
    for axis, pairs in enumerate(PAIRS):
        speed = 10000.0 ** (-torch.arange(pairs) / pairs)
        angle = places[axis].flatten()[:, None] * speed
        waves = torch.cat([angle.cos(), angle.sin()], dim=-1) / pairs**0.5
        parts.append(shares[:, axis, None, None].sqrt() * waves)
    found = torch.cat(parts, dim=-1).to(DEVICE)
    noise = torch.randn(found.shape, generator=generator, device=DEVICE) * NOISE / found.shape[-1] ** 0.5
    return found + noise


def of_densities(wanted: Tensor, grid: TokenGrid, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys (1, heads, tokens, 128) whose heads need these shares of the keys, and what they do need."""
    unit = features(grid, len(wanted), generator)
    low, high = torch.zeros(2, len(wanted), device=DEVICE)
    high += SHARPEST
    of = Wanted(top_queries=64)
    for _ in range(ROUNDS):  # the sharper, the fewer keys
        sharp = (low + high) / 2
        q = (unit * sharp[:, None, None] ** 2).to(DTYPE)
        fewer = needed_keys(q, unit.to(DTYPE), grid, of) < wanted.to(DEVICE)
        low, high = torch.where(fewer, low, sharp), torch.where(fewer, sharp, high)
    q, k = (unit * high[:, None, None] ** 2).to(DTYPE), unit.to(DTYPE)
    found = needed_keys(q, k, grid, replace(of, top_queries=CHECKED))
    return q[None], k[None], found.cpu()


def values(grid: TokenGrid, heads: int, smooth: bool, generator: torch.Generator) -> Tensor:
    """(1, heads, tokens, 128), of variance 1."""
    noise = torch.randn(1, heads, grid.tokens, 128, generator=generator, device=DEVICE)
    if not smooth:
        return noise.to(DTYPE)
    sides = torch.tensor([grid.frames, grid.height, grid.width], device=DEVICE)
    places = torch.stack(torch.meshgrid(*(torch.arange(int(n), device=DEVICE) for n in sides), indexing="ij")).flatten(
        1
    )
    speed = torch.randn(heads, 128, 3, generator=generator, device=DEVICE) * SLOW / sides
    phase = torch.rand(heads, 128, 1, generator=generator, device=DEVICE) * 2 * torch.pi
    waves = (speed @ places.float() + phase).cos() * 2**0.5
    return ((waves.transpose(1, 2)[None] + noise) / 2**0.5).to(DTYPE).contiguous()


def synchronize() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def milliseconds(run: Callable[[], object], times: int = 5) -> float:
    found = []
    for _ in range(times + 1):
        synchronize()
        start = time.perf_counter()
        run()
        synchronize()
        found.append(1000 * (time.perf_counter() - start))
    return statistics.median(found[1:])


@dataclass(frozen=True)
class Layer:
    """The heads of one layer, (1, heads, tokens, 128) each, and their dense attention."""

    grid: TokenGrid
    q: Tensor
    k: Tensor
    v: Tensor

    def dense(self) -> Tensor:
        return scaled_dot_product_attention(self.q, self.k, self.v)

    def sparse(self, kernel: Kernel, share: Tensor, ordered: bool = True) -> Tensor:
        """share: of the blocks, (heads,). ordered: whether dense heads come first."""
        plan, ones = tiles(self.grid, DEVICE), torch.ones(len(share), device=DEVICE)
        call = tile(self.q, self.k, self.v, plan, kernel.int8)
        mask = block_top_k(call, share, always(plan), ones)
        return kernel(call, mask if ordered else replace(mask, loads=None), ones)


@dataclass
class Row:
    """Of all layers: milliseconds; sums over heads of each head's relative squared error, and of the squared error."""

    took: float = 0.0
    relative: float = 0.0
    squared: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--grid", type=int, nargs=3, default=(21, 30, 52))
    parser.add_argument("--density", type=float, default=0.15)
    parser.add_argument("--preset", default=presets.NAMES[0], choices=presets.NAMES)
    parser.add_argument("--values", default="smooth", choices=["smooth", "noise"])
    parser.add_argument("--layers", type=int, help="the first so many, for a quick look")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    grid, profile = TokenGrid(*options.grid), presets.load(options.preset)
    generator = torch.Generator(DEVICE).manual_seed(0)
    needed = profile.table()[: options.layers]
    spent = {
        "one for all": np.full(needed.shape, options.density),
        "the profile's": profile.densities(options.density)[: options.layers],
    }
    kernels = kernels_for(torch.empty(1, 1, 1, 128, dtype=DTYPE, device=DEVICE), "block top-k")
    rows = {(spending, kernel): Row() for kernel in kernels for spending in spent}
    unordered = dense_took = norm = 0.0
    apart = []
    for n, of_layer in enumerate(needed):
        q, k, found = of_densities(torch.from_numpy(of_layer), grid, generator)
        apart.append(np.abs(found.numpy() - of_layer))
        layer = Layer(grid, q, k, values(grid, len(of_layer), options.values == "smooth", generator))
        dense = layer.dense().double()
        dense_took += milliseconds(layer.dense)
        norm += float(dense.square().sum())
        for (spending, kernel), row in rows.items():
            share = torch.from_numpy(spent[spending][n]).float()
            squared = (layer.sparse(kernel, share).double() - dense).square().sum((0, 2, 3))
            row.relative += float((squared / dense.square().sum((0, 2, 3))).sum())
            row.squared += float(squared.sum())
            row.took += milliseconds(partial(layer.sparse, kernel, share))
        unordered += milliseconds(partial(layer.sparse, kernels[-1], share, ordered=False))
    device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU"
    print(
        f"{device}, torch {torch.__version__}; {grid}, {len(needed)} layers of {profile.name}, values {options.values}"
    )
    print(f"the heads need what was published, within {np.max(apart):.4f}, on average {np.mean(apart):.4f} of the keys")
    print(f"dense attention, SDPA as it chooses: {dense_took:.1f} ms\n")
    heads = ["density", "mean", "kernel", "all layers, ms", "error, mean of heads", "error, all outputs"]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for (spending, kernel), row in rows.items():
        errors = (row.relative / needed.size) ** 0.5, (row.squared / norm) ** 0.5
        cells = [
            spending,
            f"{spent[spending].mean():.3f}",
            kernel.name,
            f"{row.took:.1f}",
            *(f"{x:.4f}" for x in errors),
        ]
        print("| " + " | ".join(cells) + " |")
    print(f"\nthe profile's by {kernels[-1].name}, heads in their own order: {unordered:.1f} ms")


if __name__ == "__main__":
    main()

"""Reordering into tiles by a Triton kernel, which takes the means of blocks on the way."""

from __future__ import annotations

import logging
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..tiled import Tiled
from ..tiles import Tiles

logger = logging.getLogger(__name__)


def takes(q: Tensor, v: Tensor) -> bool:
    """Whether the kernel can do this call; torch does the rest."""
    widths = q.shape[-1], v.shape[-1]
    return all(width & (width - 1) == 0 for width in widths) and works(q.device)


@lru_cache
def works(device: torch.device) -> bool:
    """Whether Triton can build for this GPU; it needs a C compiler on the machine, for one."""
    if torch.version.hip or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        with torch.cuda.device(device):
            probe = torch.ones(1, 1, 4, 16, device=device)
            _reorder(probe, torch.arange(4, dtype=torch.int32, device=device), 4, 4)
    except Exception as error:
        logger.warning("VDiT Attention: Triton does not work here, its kernels are left out: %s", error)
        return False
    return True


@triton.jit
def _reorder_block(
    x_ptr, out_ptr, means_ptr, order_ptr, x_row, x_head, x_token, heads, tokens, blocks, places,
    DIM: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    block, head, row = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    place, dims = block * SIZE + tl.arange(0, SIZE), tl.arange(0, DIM)
    inside = place < tokens
    token = tl.load(order_ptr + place, mask=inside, other=0).to(tl.int64)
    x_ptr += row * x_row + head * x_head
    x = tl.load(x_ptr + token[:, None] * x_token + dims, mask=inside[:, None], other=0.0)
    map = row * heads + head
    tl.store(out_ptr + (map * places + place[:, None]) * DIM + dims, x)
    if block < blocks:
        count = tl.minimum(tokens - block * SIZE, SIZE)
        tl.store(means_ptr + (map * blocks + block) * DIM + dims, tl.sum(x.to(tl.float32), 0) / count)


def _reorder(x: Tensor, order: Tensor, size: int, places: int) -> tuple[Tensor, Tensor]:
    """x: (rows, heads, tokens, dim), contiguous in dim. Returns: (rows, heads, places, dim), and means of blocks."""
    rows, heads, tokens, dim = x.shape
    blocks = triton.cdiv(tokens, size)
    out = x.new_empty(rows, heads, places, dim)
    means = x.new_empty(rows, heads, blocks, dim, dtype=torch.float32)
    _reorder_block[(places // size, heads, rows)](
        x, out, means, order, *x.stride()[:3], heads, tokens, blocks, places, DIM=dim, SIZE=size
    )
    return out, means


def tile(q: Tensor, k: Tensor, v: Tensor, tiles: Tiles) -> Tiled:
    """As `tiled.tile`."""
    places = tiles.query_blocks * tiles.queries
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    with torch.cuda.device_of(q):
        (q, q_means), (k, k_means), (v, _) = (
            _reorder(x, tiles.order, size, places) for x, size in ((q, tiles.queries), (k, tiles.keys), (v, tiles.keys))
        )
    return Tiled(tiles, q, k, v, q_means, k_means)

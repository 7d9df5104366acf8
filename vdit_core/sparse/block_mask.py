"""Block masks: which key blocks each query block looks at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attention.triton import triton_works


@dataclass(frozen=True, eq=False)
class BlockMask:
    """The computed blocks of a map, as flex_attention and the kernels take them.

    kv_indices: int32 (batch, heads, query blocks, n), the key blocks of each query block; of each list the first
        `kv_num_blocks` count. Every list begins with the last key block, the one that may hold fewer tokens: so a
        kernel can treat it apart.
    kv_num_blocks: int32 (batch, heads, query blocks). Batch and heads may be 1 where all are alike.
    loads: (batch, heads), how many blocks each map has, on any device; None where all have equally many.
    """

    kv_indices: Tensor
    kv_num_blocks: Tensor
    loads: Tensor | None = None

    def heaviest_first(self, rows: int, heads: int) -> Tensor:
        """The maps of a call, those with the most blocks first: int32 (rows x heads,), where the lists are.

        A kernel that begins with the dense heads isn't left waiting for one of them at the end.
        """
        device = self.kv_indices.device
        if self.loads is None:
            return torch.arange(rows * heads, dtype=torch.int32, device=device)
        order = self.loads.expand(rows, heads).flatten().argsort(descending=True, stable=True)
        return _sent(order.int(), device)

    def density(self, key_blocks: int) -> Tensor:
        """The share of blocks that is computed, float32 (heads,), where the lists are."""
        return self.kv_num_blocks.float().mean((0, 2)) / key_blocks

    def to_dense(self, key_blocks: int) -> Tensor:
        """The same as a table: bool (rows, heads, query blocks, key blocks)."""
        listed = torch.arange(self.kv_indices.shape[-1], device=self.kv_indices.device) < self.kv_num_blocks[..., None]
        table = torch.zeros(*self.kv_num_blocks.shape, key_blocks + 1, dtype=torch.bool, device=self.kv_indices.device)
        return table.scatter(-1, self.kv_indices.masked_fill(~listed, key_blocks).long(), True)[..., :key_blocks]


def top_k(scores: Tensor, share: Tensor, always: Tensor) -> BlockMask:
    """Of each query block the key blocks of the highest scores.

    Args:
        scores: (rows, heads, query blocks, key blocks).
        share: float (heads,) or (rows, heads) on the CPU, of the key blocks that are kept.
        always: bool (key blocks,) on the CPU, kept whatever their score, the last one among them; they count in the
            share.
    """
    device, total = scores.device, scores.shape[-1]
    first, kept = _leading(always, device), _sent(always, device)
    counts = (share * total).round().clamp(min=len(first), max=total).int().expand(scores.shape[:2])
    most, alike = int(counts.max()), bool((counts == counts[0, 0]).all())
    loads = None if alike else counts
    counts = _sent(counts, device)
    if triton_works(device):
        from ..attention.triton import topk  # imports Triton

        if total <= topk.MAX_KEYS:
            blocks = topk.select(scores, kept, first, counts, most)
            return BlockMask(blocks, counts[..., None].expand(scores.shape[:-1]), loads)
    free = scores.masked_fill(kept, float("-inf"))
    found = free.topk(most - len(first), dim=-1, sorted=not alike).indices.int()
    return BlockMask(_joined(first, found), counts[..., None].expand(scores.shape[:-1]), loads)


def top_p(weights: Tensor, mass: Tensor, always: Tensor) -> BlockMask:
    """Of each query block the fewest key blocks whose weights reach a mass.

    Args:
        weights: (rows, heads, query blocks, key blocks), each list's sum is 1.
        mass: float (heads,) or (rows, heads).
        always: as `top_k`; what they hold counts.
    """
    first, kept = _leading(always, weights.device), _sent(always, weights.device)
    held = weights.where(kept, 0).sum(-1, keepdim=True)
    falling, order = weights.masked_fill(kept, -1).sort(dim=-1, descending=True)
    falling, order = falling[..., : weights.shape[-1] - len(first)], order[..., : weights.shape[-1] - len(first)]
    before = held + falling.cumsum(-1) - falling
    counts = (before < mass.to(weights.device)[..., None, None]).sum(-1)
    most = int(counts.max()) if counts.numel() else 0
    return BlockMask(_joined(first, order[..., :most].int()), (counts + len(first)).int(), counts.sum(-1))


def with_dense_queries(lists: BlockMask, dense: Tensor, key_blocks: int) -> BlockMask:
    """The same, but some query blocks look at every key block; dense: bool (query blocks,) on the CPU."""
    if not dense.any():
        return lists
    dense = dense.to(lists.kv_num_blocks.device)
    every = torch.arange(key_blocks, dtype=torch.int32, device=dense.device).roll(1)
    blocks = F.pad(lists.kv_indices, (0, key_blocks - lists.kv_indices.shape[-1]))
    return BlockMask(
        torch.where(dense[:, None], every, blocks),
        torch.where(dense, key_blocks, lists.kv_num_blocks).int(),
        lists.loads,
    )


def _leading(always: Tensor, device: torch.device) -> Tensor:
    """The blocks that every list begins with, int32, the last one first."""
    if not always[-1]:
        raise ValueError("The last key block must always be kept.")
    return _sent(always.nonzero()[:, 0].roll(1).int(), device)


def _sent(x: Tensor, device: torch.device) -> Tensor:
    """A small tensor on another device, without waiting for what a GPU is doing: CUDA copies it aside first."""
    return x.to(device, non_blocking=True)


def _joined(first: Tensor, found: Tensor) -> Tensor:
    return torch.cat([first.expand(*found.shape[:-1], -1), found], dim=-1)

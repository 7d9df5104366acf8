"""Tokens that attend together with the grid's: the prompt's in joint attention, the guides of LTX."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class JointTokens:
    """The whole sequences of one attention call, and where the grid's tokens are in them.

    q: (rows, heads, queries, head_dim). k, v: (rows, heads, keys, head_dim). q_start, k_start: where the grid's tokens
    begin; tokens: how many these are. bias: float32 (rows, keys), what the model's own mask adds to the scores of each
    key (the lowest number of a dtype leaves one out), or None.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    q_start: int
    k_start: int
    tokens: int
    bias: Tensor | None = None

    def of_grid(self) -> tuple[Tensor, Tensor, Tensor]:
        """The grid's own queries, keys and values, views of (rows, heads, tokens, head_dim)."""
        starts = zip((self.q, self.k, self.v), (self.q_start, self.k_start, self.k_start), strict=True)
        q, k, v = (x.narrow(2, start, self.tokens) for x, start in starts)
        return q, k, v

    def with_grid(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The whole sequences with these of the grid; what is unchanged is not copied."""
        return _put(self.q, q, self.q_start), _put(self.k, k, self.k_start), _put(self.v, v, self.k_start)

    def rows(self, rows: slice) -> JointTokens:
        """Some rows of the batch."""
        bias = None if self.bias is None else self.bias[rows]
        return replace(self, q=self.q[rows], k=self.k[rows], v=self.v[rows], bias=bias)

    @property
    def square(self) -> bool:
        """Whether queries and keys are of the same tokens."""
        return self.q.shape[2] == self.k.shape[2]

    def key_bias(self, of_grid: Tensor) -> Tensor:
        """An editor's bias of the grid's keys, (heads, tokens), as one of all keys, with the model's own mask: (rows,
        heads, keys)."""
        behind = self.k.shape[2] - self.k_start - self.tokens
        bias = F.pad(of_grid, (self.k_start, behind)).expand(len(self.k), -1, -1)
        return bias if self.bias is None else bias + self.bias[:, None].clamp(min=-1e4)

    def left_out(self) -> Tensor | None:
        """Which keys the model's mask leaves out, bool (rows, keys); None if it has none, or weighs keys instead."""
        if self.bias is None or not bool(((self.bias == 0) | (self.bias < -1e4)).all()):
            return None
        return self.bias < -1e4


def key_bias(mask: Tensor, rows: int, keys: int) -> Tensor:
    """A model's mask as what it adds to the scores of each key, float32 (rows, keys), on its device.

    mask: (queries, keys), (rows, queries, keys) or (rows, heads, queries, keys), each but keys may be 1; bool, True is
    seen, or what is added to scores.

    Raises:
        ValueError: if it says other things to different heads or queries, but for queries that see nothing.
    """
    mask = mask[:, None] if mask.dim() == 3 else mask.reshape(*[1] * (4 - mask.dim()), *mask.shape)
    boolean = mask.dtype == torch.bool
    found = mask.any(2) if boolean else mask.amax(2)
    whole = (found[:, :, None] & mask.any(3, keepdim=True)) if boolean else found[:, :, None].expand_as(mask)
    if mask.shape[1] != 1 or not torch.equal(mask, whole):
        raise ValueError(f"A mask of shape {tuple(mask.shape)} differs between heads or queries, which is not served.")
    found = found[:, 0].expand(rows, keys)
    if not boolean:
        return found.float()
    return torch.zeros(found.shape, device=mask.device).masked_fill(~found, torch.finfo(torch.float32).min)


def _put(whole: Tensor, part: Tensor, start: int) -> Tensor:
    now = whole.narrow(2, start, part.shape[2])
    if (part.data_ptr(), part.stride()) == (now.data_ptr(), now.stride()):
        return whole
    return torch.cat([whole[:, :, :start], part, whole[:, :, start + part.shape[2] :]], dim=2)

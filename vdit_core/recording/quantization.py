"""How recorded queries and keys are kept: as they are, or as int8 with one scale per token and head."""

from __future__ import annotations

import torch
from torch import Tensor

QUANTIZATIONS = ("none", "int8")


def encode(x: Tensor, quantization: str) -> dict[str, Tensor]:
    """Pack a tensor (rows, heads, tokens, head_dim).

    Returns:
        {"": x} for none, in x's own dtype; for int8 {"": int8 of x's shape, ".scale": float32, last dim 1}, where
        scale = max |x| / 127 over head_dim, so that no entry is off by more than half a scale.
    """
    if quantization == "none":
        return {"": x.contiguous()}
    packed = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    scales = torch.empty((*x.shape[:-1], 1), dtype=torch.float32, device=x.device)
    for part, scale, head in zip(*(y.unbind(1) for y in (packed, scales, x)), strict=True):
        values = head.float()  # a head at a time: all in float32 would be four times the packed tensor
        scale.copy_((values.abs().amax(-1, keepdim=True) / 127).clamp(min=torch.finfo(torch.float32).tiny))
        part.copy_((values / scale).round_().clamp_(-127, 127))
    return {"": packed, ".scale": scales}


def decode(parts: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
    """Unpack what `encode` packed."""
    if ".scale" not in parts:
        return parts[""].to(dtype)
    unpacked = torch.empty_like(parts[""], dtype=dtype)
    for values, scale, part in zip(*(x.unbind(1) for x in (parts[""], parts[".scale"], unpacked)), strict=True):
        part.copy_(values.float() * scale)  # a head at a time: all in float32 would be four times the packed tensor
    return unpacked


def layout(
    shape: tuple[int, ...], dtype: torch.dtype, quantization: str
) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype of each part that `encode` makes of such a tensor: what a file must hold, and what it weighs."""
    if quantization == "none":
        return {"": (shape, dtype)}
    return {"": (shape, torch.int8), ".scale": ((*shape[:-1], 1), torch.float32)}

"""How recorded queries and keys are kept: as they are, or as int8 with one scale per token and head."""

from __future__ import annotations

import torch
from torch import Tensor

from ..attention.triton import triton_works

QUANTIZATIONS = ("none", "int8")


def encode(x: Tensor, quantization: str) -> dict[str, Tensor]:
    """Pack a tensor (rows, heads, tokens, head_dim).

    Returns:
        {"": x} for none, in x's own dtype; for int8 {"": int8 of x's shape, ".scale": float32, last dim 1}, where
        scale = max |x| / 127 over head_dim, so that no entry is off by more than half a scale.
    """
    if quantization == "none":
        return {"": x.contiguous()}
    if triton_works(x.device):
        from ..attention.triton import int8  # imports Triton

        packed, scales = int8.pack(x)
        return {"": packed, ".scale": scales}
    packed = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    scales = torch.empty((*x.shape[:-1], 1), dtype=torch.float32, device=x.device)
    most = torch.full((), 127.0, device=x.device)  # a tensor: CUDA multiplies by a number's reciprocal instead
    for part, scale, head in zip(*(y.unbind(1) for y in (packed, scales, x)), strict=True):
        values = head.float()  # a head at a time: all in float32 would be four times the packed tensor
        scale.copy_((values.abs().amax(-1, keepdim=True) / most).clamp(min=torch.finfo(torch.float32).tiny))
        part.copy_((values / scale).round_().clamp_(-127, 127))
    return {"": packed, ".scale": scales}


def packs_in_one_pass(x: Tensor, quantization: str) -> bool:
    """Whether `encode` reads x once, and takes no memory beside what it gives."""
    return quantization == "none" or triton_works(x.device)


def decode(parts: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
    """Unpack what `encode` packed."""
    if ".scale" not in parts:
        return parts[""].to(dtype)
    if triton_works(parts[""].device):
        from ..attention.triton import int8  # imports Triton

        return int8.unpack(parts[""], parts[".scale"], dtype)
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

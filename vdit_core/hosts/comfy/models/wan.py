"""Wan: which of its networks lay out their tokens in a known way, and how.

T2V, I2V, first-last-frame and 5B are one class. VACE runs blocks of its own beside the main ones and gives them the
main block's index: the main block's self-attention comes first, so the other calls of an index are not its own. Camera
adds its condition to the patches. S2V, Animate, HuMo and SCAIL put further tokens into the sequence.
"""

from __future__ import annotations

import math
from typing import Any

from comfy.ldm.wan import model as wan
from torch import Tensor

from ....call import ModelSignature, TokenGrid

#: Absent ones are of newer ComfyUIs.
_SERVED = [getattr(wan, name, None) for name in ("WanModel", "VaceWanModel", "CameraWanModel")]


def network_of(model: Any) -> Any:
    """The network of a model patcher, without what torch.compile puts around it."""
    network = model.model.diffusion_model
    return getattr(network, "_orig_mod", network)


def unknown(network: Any) -> str | None:
    """Why a network is none of those whose tokens are known; None if it is one."""
    if type(network) in _SERVED:
        return None
    return (
        f"{type(network).__name__} is not a model whose tokens this pack knows "
        "(Wan2.1 and Wan2.2 T2V, I2V, first-last-frame, 5B, VACE and Camera are)"
    )


def signature_of(network: Any) -> ModelSignature:
    """The shape of a network."""
    return ModelSignature(len(network.blocks), network.num_heads, network.dim // network.num_heads)


def kind_of(network: Any) -> str:
    """What tells networks of one signature apart, in words that all hosts share."""
    beside = {"VaceWanModel": " vace", "CameraWanModel": " camera"}.get(type(network).__name__, "")
    return f"wan {network.model_type}{beside} {network.in_dim} -> {network.out_dim}"


def grid_of(network: Any, x: Tensor, conds: dict[str, Any]) -> TokenGrid:
    """How the tokens of a model call lie.

    x: (rows, channels, frames, height, width), latents. conds: the call's further inputs, as APPLY_MODEL gets them.
    """
    frames, height, width = _patches(network, x)
    if (subjects := conds.get("time_dim_concat")) is not None:
        frames += _patches(network, subjects)[0]
    suffix = sum(math.prod(_patches(network, one)) for one in conds.get("context_latents") or ())
    return TokenGrid(frames, height, width, reference_tokens(network, conds), suffix)


def reference_tokens(network: Any, conds: dict[str, Any]) -> int:
    """How many tokens of a reference picture a model call puts before the grid's."""
    reference = conds.get("reference_latent")
    if reference is None or getattr(network, "ref_conv", None) is None:
        return 0
    return math.prod(n // p for n, p in zip(reference.shape[-2:], network.patch_size[1:], strict=True))


def _patches(network: Any, x: Tensor) -> tuple[int, ...]:
    """Patches in each direction; what does not fill one is padded."""
    return tuple(-(-n // p) for n, p in zip(x.shape[-3:], network.patch_size, strict=True))

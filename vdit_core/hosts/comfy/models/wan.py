"""Wan: which of its networks lay out their tokens in a known way, and how.

T2V, I2V, first-last-frame and 5B are one class. VACE runs blocks of its own beside the main ones and gives them the
main block's index: the main block's self-attention comes first, so the other calls of an index are not its own. Camera
adds its condition to the patches. HuMo and S2V put a reference, and S2V earlier frames, behind the grid.
"""

from __future__ import annotations

import math
from typing import Any

from comfy.ldm.wan import model as wan
from torch import Tensor

from ....call import ModelSignature, TokenGrid

#: Absent ones are of newer ComfyUIs.
_SERVED = [
    getattr(wan, name, None) for name in ("WanModel", "VaceWanModel", "CameraWanModel", "HumoWanModel", "WanModel_S2V")
]
#: What `kind_of` says of them besides.
_BESIDE = {"VaceWanModel": " vace", "CameraWanModel": " camera", "HumoWanModel": " humo", "WanModel_S2V": " s2v"}
#: Their reference picture comes behind the grid.
_REFERENCE_BEHIND = ("HumoWanModel", "WanModel_S2V")


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
        "(Wan2.1 and Wan2.2 T2V, I2V, first-last-frame, 5B, VACE, Camera, HuMo and S2V are)"
    )


def signature_of(network: Any) -> ModelSignature:
    """The shape of a network."""
    return ModelSignature(len(network.blocks), network.num_heads, network.dim // network.num_heads)


def kind_of(network: Any) -> str:
    """What tells networks of one signature apart, in words that all hosts share."""
    beside = _BESIDE.get(type(network).__name__, "")
    return f"wan {network.model_type}{beside} {network.in_dim} -> {network.out_dim}"


def grid_of(network: Any, x: Tensor, conds: dict[str, Any]) -> TokenGrid:
    """How the tokens of a model call lie.

    x: (rows, channels, frames, height, width), latents. conds: the call's further inputs, as APPLY_MODEL gets them.
    """
    frames, height, width = _patches(network, x)
    if (subjects := conds.get("time_dim_concat")) is not None:
        frames += _patches(network, subjects)[0]
    suffix = sum(math.prod(_patches(network, one)) for one in conds.get("context_latents") or ())
    if type(network).__name__ in _REFERENCE_BEHIND and (reference := conds.get("reference_latent")) is not None:
        suffix += math.prod(_patches(network, reference))
    if getattr(network, "frame_packer", None) is not None and (motion := conds.get("reference_motion")) is not None:
        suffix += _packed(*motion.shape[-2:])
    return TokenGrid(frames, height, width, reference_tokens(network, conds), suffix)


def reference_tokens(network: Any, conds: dict[str, Any]) -> int:
    """How many tokens of a reference picture a model call puts before the grid's."""
    reference = conds.get("reference_latent")
    if reference is None or getattr(network, "ref_conv", None) is None:
        return 0
    return math.prod(n // p for n, p in zip(reference.shape[-2:], network.patch_size[1:], strict=True))


def _packed(height: int, width: int) -> int:
    """The tokens of S2V's earlier frames: the last at full size, two at half, sixteen at a quarter, in time too."""
    return sum(frames * (height // edge) * (width // edge) for frames, edge in ((1, 2), (1, 4), (4, 8)))


def _patches(network: Any, x: Tensor) -> tuple[int, ...]:
    """Patches in each direction; what does not fill one is padded."""
    return tuple(-(-n // p) for n, p in zip(x.shape[-3:], network.patch_size, strict=True))

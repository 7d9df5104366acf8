"""Wan2.1 and Wan2.2 in ComfyUI."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ....call import TokenGrid
from .family import Family, class_of, patches

_MODEL, _SPLIT = "comfy.ldm.wan.model", "comfy.ldm.wan.model_animate2.WanAnimate2Model"
_CAUSAL = "comfy.ldm.wan.ar_model.CausalWanModel"
#: What `kind_of` says of them besides.
_BESIDE = {
    f"{_MODEL}.WanModel": "",
    f"{_MODEL}.VaceWanModel": " vace",
    f"{_MODEL}.CameraWanModel": " camera",
    f"{_MODEL}.HumoWanModel": " humo",
    f"{_MODEL}.WanModel_S2V": " s2v",
    f"{_MODEL}.SCAILWanModel": " scail",
    f"{_MODEL}.SCAIL2WanModel": " scail2",
    "comfy.ldm.wan.model_animate.AnimateWanModel": " animate",
}
#: Their reference picture comes behind the grid.
_REFERENCE_BEHIND = (" humo", " s2v")
_SCAIL = (" scail", " scail2")


class Wan(Family):
    """Wan: which of its networks lay out their tokens in a known way, and how.

    T2V, I2V, first-last-frame and 5B are one class. VACE runs blocks of its own between the main ones, with the main
    block's index; they are counted behind the main ones. Of several controls, which run through them one after the
    other, the first is served. Camera and Animate add their conditions to the patches. HuMo and S2V put a reference,
    and S2V earlier frames, behind the grid; SCAIL puts its reference before the grid and the poses behind it.
    """

    name = "Wan2.1 and Wan2.2 (T2V, I2V, first-last-frame, 5B, VACE, Camera, Animate, HuMo, S2V, SCAIL)"
    networks = tuple(_BESIDE)
    fills_text = True
    unreachable = (
        (_CAUSAL, "its causal attention keeps keys of its own, and its calls do not tell ComfyUI's hook of themselves"),
        (_SPLIT, "it computes the attention of each frame in several calls"),
    )

    def heads(self, network: Any) -> tuple[int, int]:
        return network.num_heads, network.dim // network.num_heads

    def kind_of(self, network: Any) -> str:
        return f"wan {network.model_type}{_beside(network)} {network.in_dim} -> {network.out_dim}"

    def kinds_of(self, network: Any) -> tuple[tuple[str, str], ...]:
        return (("main", "blocks"), ("vace", "vace_blocks")) if _beside(network) == " vace" else self.blocks

    def layer_told(self, options: Mapping[str, Any], counts: Mapping[str, int]) -> int | None:
        return None if "vace" in counts else options.get("block_index")

    def grid_of(self, network: Any, x: Tensor, conds: Mapping[str, Any]) -> TokenGrid:
        size, kind = network.patch_size, _beside(network)
        (frames, height, width), reference = patches(x, size), conds.get("reference_latent")
        if (subjects := conds.get("time_dim_concat")) is not None:
            frames += patches(subjects, size)[0]
        prefix, suffix = 0, sum(math.prod(patches(one, size)) for one in conds.get("context_latents") or ())
        if reference is not None:
            if kind in _REFERENCE_BEHIND:
                suffix += math.prod(patches(reference, size))
            elif kind in _SCAIL:
                prefix = math.prod(patches(reference, size))
            elif getattr(network, "ref_conv", None) is not None:
                prefix = math.prod(n // p for n, p in zip(reference.shape[-2:], size[1:], strict=True))
        if kind in _SCAIL and (poses := conds.get("pose_latents")) is not None:
            suffix += math.prod(patches(poses, size))
        if getattr(network, "frame_packer", None) is not None and (motion := conds.get("reference_motion")) is not None:
            suffix += _packed(*motion.shape[-2:])
        return TokenGrid(frames, height, width, prefix, suffix)


def _beside(network: Any) -> str:
    return _BESIDE[class_of(network)]


def _packed(height: int, width: int) -> int:
    """The tokens of S2V's earlier frames: the last at full size, two at half, sixteen at a quarter, in time too."""
    return sum(frames * (height // edge) * (width // edge) for frames, edge in ((1, 2), (1, 4), (4, 8)))

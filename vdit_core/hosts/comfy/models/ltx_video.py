"""LTX-Video and LTX-2 in ComfyUI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ....call import TokenGrid
from .family import Family, patches


class LTXVideo(Family):
    """LTX-Video and LTX-2: self-attention of its own, `attn1`; LTX-2 has audio beside the video, which is left alone.

    Guide pictures are latent frames behind the video's, some of their tokens left out. Where the user gives them a
    weight, the video's queries look at all keys in one call, with the weights as a mask, and the guides' in another. So
    guides are no part of the grid: they attend together with it, as a prompt does in joint attention.
    """

    name = "LTX-Video and LTX-2"
    networks = ("comfy.ldm.lightricks.model.LTXVModel", "comfy.ldm.lightricks.av_model.LTXAVModel")
    blocks = (("", "transformer_blocks"),)
    self_attention = "attn1"
    cross_attention = "attn2"
    text = "behind"

    def heads(self, network: Any) -> tuple[int, int]:
        return network.num_attention_heads, network.attention_head_dim

    def kind_of(self, network: Any) -> str:
        audio = " audio" if hasattr(network, "audio_in_channels") else ""
        return f"ltx{audio} {network.in_channels} -> {network.out_channels}"

    def grid_of(self, network: Any, x: Tensor, conds: Mapping[str, Any]) -> TokenGrid:
        shape = tuple(x.shape)
        if (streams := conds.get("latent_shapes")) is not None:  # video and audio, packed as one
            shape = tuple(streams[0])
        frames, height, width = patches(x.new_empty(shape[-3:], device="meta"), network.patchifier.patch_size)
        if (guides := conds.get("keyframe_idxs")) is not None:
            frames -= guides.shape[2] // (height * width)
        return TokenGrid(frames, height, width)

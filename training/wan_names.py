"""Export with the key names of the original Wan2.1 checkpoints, which every loader knows.

The models are trained as diffusers modules; these are the names of their parameters in the original release. (The
opposite way is diffusers' own `from_single_file`; a test runs both and gets the parameters back.)
"""

from __future__ import annotations

import re

from torch import Tensor

# Order matters: what stands first is replaced first.
_TRANSFORMER = (
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    ("attn1", "self_attn"),
    ("attn2", "cross_attn"),
    (".to_out.0.", ".o."),
    (".to_q.", ".q."),
    (".to_k.", ".k."),
    (".to_v.", ".v."),
    ("ffn.net.0.proj", "ffn.0"),
    ("ffn.net.2", "ffn.2"),
    (".norm2.", ".norm3."),  # the one norm with weights; Wan counts it third
    ("proj_out", "head.head"),
)

_RESIDUAL = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6"}


def transformer_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of a diffusers `WanTransformer3DModel` (T2V) to Wan's names."""
    renamed = {}
    for name, value in state.items():
        for ours, theirs in _TRANSFORMER:
            name = name.replace(ours, theirs)
        if name == "scale_shift_table":
            name = "head.modulation"
        renamed[name.replace("scale_shift_table", "modulation")] = value
    return renamed


def vae_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of a diffusers `AutoencoderKLWan` (Wan2.1) to Wan's names."""
    return {_vae_name(name): value for name, value in state.items()}


def _vae_name(name: str) -> str:
    name = re.sub(r"^quant_conv\.", "conv1.", name)
    name = re.sub(r"^post_quant_conv\.", "conv2.", name)
    name = name.replace("coder.conv_in.", "coder.conv1.")
    name = name.replace("coder.norm_out.", "coder.head.0.").replace("coder.conv_out.", "coder.head.2.")
    name = name.replace("mid_block.attentions.0.", "middle.1.")
    name = re.sub(r"mid_block\.resnets\.(\d)\.", lambda m: f"middle.{2 * int(m[1])}.", name)
    # A decoder block is three residual blocks and a resampler in Wan's flat list.
    name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)\.", lambda m: f"upsamples.{4 * int(m[1]) + int(m[2])}.", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0\.", lambda m: f"upsamples.{4 * int(m[1]) + 3}.", name)
    name = name.replace("down_blocks.", "downsamples.")
    if re.search(r"(middle|upsamples|downsamples)\.\d+\.(norm1|norm2|conv1|conv2)\.", name):
        head, part, tail = name.rsplit(".", 2)
        name = f"{head}.{_RESIDUAL[part]}.{tail}"
    return name.replace("conv_shortcut", "shortcut")

"""Small models of ComfyUI's own classes, one for each family, with random weights."""

from __future__ import annotations

from typing import Any

import comfy.model_patcher
import comfy.ops
import comfy.supported_models as known
import torch
from inside import Absent

_CPU = torch.device("cpu")


def _made(config: str, *, samples_from: dict[str, Any] | None = None, **network: Any) -> Any:
    """A MODEL of one of ComfyUI's configurations, of a network with these settings."""
    kind = getattr(known, config, None)
    if kind is None:
        raise Absent(f"this ComfyUI has no {config}")
    settings = kind({**kind.unet_config, **network, "dtype": torch.float32})
    settings.custom_operations = comfy.ops.disable_weight_init
    settings.sampling_settings = dict(settings.sampling_settings) | (samples_from or {})
    model = settings.get_model({}, device=_CPU)
    generator = torch.Generator().manual_seed(0)
    for x in (*model.diffusion_model.parameters(), *model.diffusion_model.buffers()):
        if x.is_floating_point():
            x.copy_(0.1 * torch.randn(x.shape, generator=generator) + (x.dim() == 1))
    return comfy.model_patcher.ModelPatcher(model, load_device=_CPU, offload_device=_CPU)


def hunyuan_video(**changes: Any) -> Any:
    return _made(
        "HunyuanVideo",
        **{"in_channels": 16, "out_channels": 16, "vec_in_dim": 12, "context_in_dim": 24, "hidden_size": 64,
           "mlp_ratio": 2.0, "num_heads": 2, "depth": 2, "depth_single_blocks": 2, "axes_dim": [8, 12, 12],
           "theta": 256, "patch_size": [1, 2, 2], "qkv_bias": True, "guidance_embed": True, "byt5": False,
           "meanflow": False, "use_cond_type_embedding": False, "vision_in_dim": None, "meanflow_sum": False} | changes,
    )  # fmt: skip


def hunyuan_video_15() -> Any:
    return _made(
        "HunyuanVideo15",
        in_channels=65, out_channels=32, vec_in_dim=None, context_in_dim=24, hidden_size=64, mlp_ratio=2.0,
        num_heads=2, depth=3, depth_single_blocks=0, axes_dim=[8, 12, 12], theta=256, patch_size=[1, 1, 1],
        qkv_bias=True, guidance_embed=False, byt5=True, meanflow=False, use_cond_type_embedding=True,
        vision_in_dim=1152, meanflow_sum=False,
    )  # fmt: skip


def mochi() -> Any:
    return _made(
        "GenmoMochi",
        depth=3, patch_size=2, num_heads=2, hidden_size_x=64, hidden_size_y=32, mlp_ratio_x=192.0, mlp_ratio_y=2.0,
        learn_sigma=False, in_channels=12, qk_norm=True, qkv_bias=False, out_bias=True, attn_drop=0.0,
        patch_embed_bias=True, posenc_preserve_area=True, timestep_mlp_bias=True, attend_to_padding=False,
        timestep_scale=1000.0, use_t5=True, t5_feat_dim=32, t5_token_length=256, rope_theta=10000.0,
    )  # fmt: skip


def cogvideox(**changes: Any) -> Any:
    return _made(
        "CogVideoX_T2V",
        **{"num_attention_heads": 2, "attention_head_dim": 32, "in_channels": 16, "out_channels": 16,
           "time_embed_dim": 16, "text_embed_dim": 24, "num_layers": 3, "patch_size": 2, "sample_width": 8,
           "sample_height": 8, "sample_frames": 5, "max_text_seq_length": 6,
           "use_rotary_positional_embeddings": True} | changes,
    )  # fmt: skip


def ltx_video() -> Any:
    return _made(
        "LTXV",
        in_channels=128, cross_attention_dim=64, attention_head_dim=32, num_attention_heads=2, caption_channels=24,
        num_layers=3,
    )  # fmt: skip


def ltx_2() -> Any:
    return _made(
        "LTXAV",
        in_channels=128, audio_in_channels=128, cross_attention_dim=64, audio_cross_attention_dim=32,
        attention_head_dim=32, audio_attention_head_dim=16, num_attention_heads=2, audio_num_attention_heads=2,
        caption_channels=24, num_layers=3, connector_attention_head_dim=12, connector_num_attention_heads=2,
        connector_num_layers=1, use_middle_indices_grid=True,
    )  # fmt: skip


def cosmos_predict2() -> Any:
    return _made(
        "CosmosT2IPredict2",
        max_img_h=240, max_img_w=240, max_frames=128, in_channels=16, out_channels=16, patch_spatial=2,
        patch_temporal=1, concat_padding_mask=True, model_channels=64, num_blocks=3, num_heads=2, mlp_ratio=2.0,
        crossattn_emb_channels=24, pos_emb_cls="rope3d", pos_emb_learnable=True, use_adaln_lora=True,
        adaln_lora_dim=8, min_fps=1, max_fps=30,
    )  # fmt: skip


def kandinsky5() -> Any:
    return _made(
        "Kandinsky5",
        in_visual_dim=16, out_visual_dim=16, in_text_dim=24, in_text_dim2=12, time_dim=32, model_dim=64, ff_dim=128,
        visual_embed_dim=132, patch_size=(1, 2, 2), num_text_blocks=1, num_visual_blocks=3, axes_dims=(8, 12, 12),
    )  # fmt: skip


def wan(config: str, **changes: Any) -> Any:
    """A Wan that ComfyUI cannot tell by a small file's keys."""
    return _made(
        config,
        **{"in_dim": 36, "out_dim": 16, "dim": 128, "ffn_dim": 64, "num_heads": 1, "num_layers": 2, "text_dim": 4096}
        | changes,
    )

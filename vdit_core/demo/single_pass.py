"""The Wan2.1 VAE on a whole short clip in one pass.

`AutoencoderKLWan` walks a clip in chunks of four frames with a cache of past frames: right for long videos, but slow
for short ones, on a CPU and in training. A causal network gives the same numbers when the first frame is set apart
where time is resampled, so this walk over the same modules equals the chunked one to rounding (tested).

Clips have 1 + 4 n frames; videos are in [-1, 1].
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample
from torch import Tensor


def encode(vae: AutoencoderKLWan, video: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior mean and log variance, each (clips, 16, 1 + n, height / 8, width / 8)."""
    encoder = vae.encoder
    x = encoder.conv_in(video)
    for layer in encoder.down_blocks:
        x = _downsample(layer, x) if isinstance(layer, WanResample) else layer(x)
    x = encoder.mid_block(x)
    x = encoder.conv_out(encoder.nonlinearity(encoder.norm_out(x)))
    mean, log_variance = vae.quant_conv(x).chunk(2, dim=1)
    return mean, log_variance.clamp(-30, 20)


def decode(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """The video of some latents, (clips, 3, 1 + 4 n, 8 height, 8 width), not clamped."""
    decoder = vae.decoder
    x = decoder.mid_block(decoder.conv_in(vae.post_quant_conv(latents)))
    for block in decoder.up_blocks:
        for residual in block.resnets:
            x = residual(x)
        if block.upsamplers is not None:
            x = _upsample(block.upsamplers[0], x)
    return decoder.conv_out(decoder.nonlinearity(decoder.norm_out(x)))


def _frame_by_frame(layer: torch.nn.Module, x: Tensor) -> Tensor:
    clips = len(x)
    return layer(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (clips, -1)).transpose(1, 2)


def _downsample(layer: WanResample, x: Tensor) -> Tensor:
    x = _frame_by_frame(layer.resample, x)
    if layer.mode == "downsample3d":
        x = torch.cat([x[:, :, :1], layer.time_conv(x)], dim=2)
    return x


def _upsample(layer: WanResample, x: Tensor) -> Tensor:
    if layer.mode == "upsample3d":
        pairs = layer.time_conv(x[:, :, 1:]).unflatten(1, (2, -1))
        x = torch.cat([x[:, :, :1], pairs.permute(0, 2, 3, 1, 4, 5).flatten(2, 3)], dim=2)
    return _frame_by_frame(layer.resample, x)

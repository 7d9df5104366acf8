"""Stage `vae`: the tiny Wan2.1 VAE, and the folding of its latent statistics into its convolutions."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from vdit_core.demo import single_pass

from .clips import PIXELS, clips, signed
from .muon import Muon
from .stage import Stage, learning_rate

BASE_DIM = 16
KL_WEIGHT = 3e-4


def loss(video: Tensor, output: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Squared, absolute and gradient error, and the pull of the posterior to a unit Gaussian."""
    error = output - video
    gradient = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    return 2 * (error**2).mean() + 0.5 * error.abs().mean() + 0.25 * gradient + KL_WEIGHT * divergence


def train(
    steps: int, pool: int, batch: int, work: Path, deadline: float, device: str, compiled: bool
) -> AutoencoderKLWan:
    """Train on random full clips of the pool; returns the VAE with float32 weights."""
    torch.manual_seed(0)
    vae = channels_last(AutoencoderKLWan(base_dim=BASE_DIM).to(device))
    outer = ("conv_in", "coder.conv_out", "quant_conv")  # first and last layers are AdamW's, like norms and biases
    inner = {
        name: p.ndim > 3 and p.numel() > len(p) and not any(part in name for part in outer)
        for name, p in vae.named_parameters()
    }
    matrices = [p for name, p in vae.named_parameters() if inner[name]]
    rest = [p for name, p in vae.named_parameters() if not inner[name]]
    muon, adam = Muon(matrices, lr=6e-3), torch.optim.AdamW(rest, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0)
    stage = Stage("vae", steps, work, deadline, vae=vae, muon=muon, adam=adam)
    if stage.progress == 1:
        return vae.eval()

    def forward(video: Tensor, noise: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16):
            mean, log_variance = single_pass.encode(vae, video)
            latents = mean + noise * torch.exp(0.5 * log_variance)
            output = single_pass.decode(vae, latents)
        return loss(video, output.float(), mean.float(), log_variance.float())

    step_loss = torch.compile(forward) if compiled else forward
    data = clips(PIXELS, pool, device)
    for step in stage:
        generator = stage.generator(device)
        video = signed(data.video[torch.randint(pool, (batch,), generator=generator, device=device)])
        if torch.rand((), generator=generator, device=device) < 0.5:
            video = video.flip(-1)
        video = video.contiguous(memory_format=torch.channels_last_3d)
        shape = (batch, 16, (video.shape[2] + 3) // 4, video.shape[3] // 8, video.shape[4] // 8)
        value = step_loss(video, torch.randn(shape, generator=generator, device=device))
        value.backward()
        torch.nn.utils.clip_grad_norm_(rest, 1.0)
        for optimizer, rate in ((muon, 6e-3), (adam, 1e-3)):
            optimizer.param_groups[0]["lr"] = rate * learning_rate(stage.progress)
            optimizer.step()
            optimizer.zero_grad()
        if step % 100 == 0:
            stage.log(loss=value.item(), psnr=reconstruction_psnr(vae, data.video[:8]))
    return vae.eval()


def channels_last(model: torch.nn.Module) -> torch.nn.Module:
    """Lay convolution kernels out as tensor cores want them."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for p in model.parameters():
        if p.ndim in formats:
            p.data = p.data.contiguous(memory_format=formats[p.ndim])
    return model


@torch.no_grad()
def reconstruct(vae: AutoencoderKLWan, video: Tensor) -> Tensor:
    """Encode and decode uint8 clips; returns uint8 clips."""
    mean, _ = single_pass.encode(vae, signed(video))
    output = single_pass.decode(vae, mean)
    return ((output.clamp(-1, 1) + 1) * 127.5).round().byte()


def reconstruction_psnr(vae: AutoencoderKLWan, video: Tensor) -> float:
    """Mean over clips of the peak signal-to-noise ratio, dB."""
    error = (reconstruct(vae, video).float() - video.float()) / 255
    return float((-10 * (error**2).mean(dim=(1, 2, 3, 4)).log10()).mean())


@torch.no_grad()
def fold_statistics(vae: AutoencoderKLWan, mean: Tensor, std: Tensor) -> None:
    """Make the VAE's latents have Wan2.1's fixed per-channel mean and standard deviation.

    Every host maps latents by (z - mean) / std with Wan2.1's constants before the transformer sees them. With the
    tiny VAE's own `mean` and `std`, (16,), folded into its 1x1 convolutions, that map gives zero mean, unit variance.
    """
    fixed_mean = torch.tensor(vae.config.latents_mean, device=mean.device)
    fixed_std = torch.tensor(vae.config.latents_std, device=mean.device)
    gain = fixed_std / std
    out, back = vae.quant_conv, vae.post_quant_conv
    weight, bias = back.weight.clone(), back.bias.clone()
    out.weight[:16] *= gain[:, None, None, None, None]
    out.bias[:16] = (out.bias[:16] - mean) * gain + fixed_mean
    out.bias[16:] += 2 * gain.log()
    back.weight.copy_(weight / gain[None, :, None, None, None])
    back.bias.copy_(bias + weight[:, :, 0, 0, 0] @ (mean - fixed_mean / gain))

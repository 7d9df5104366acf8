"""Stages `latents` and `transformer`: the world's clips as latents, and flow matching on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import Tensor

from vdit_core.demo import single_pass
from vdit_core.hosts.diffusers.models.wan import self_attention_inputs
from vdit_core.tiny_wan.text import WIDTH, TextEncoder

from .clips import clips, signed
from .muon import Muon
from .stage import Stage, learning_rate

SHIFT = 3.0
DROPPED = 0.1
MATRIX_RATE, OTHER_RATE = 5e-3, 1.5e-3


def new_transformer() -> WanTransformer3DModel:
    """Wan2.1's T2V architecture at 7.8 M parameters; head_dim 128 is what every loader assumes."""
    return WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=128, text_dim=WIDTH, ffn_dim=512, num_layers=9
    )


class FusedSelfAttention:
    """Wan's self-attention in a form that compiles to few kernels: the stock one writes RoPE's halves in place, which
    takes 40 % of a compiled training step."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: None,
        attention_mask: None,
        rotary_emb: tuple[Tensor, Tensor],
    ) -> Tensor:
        rotary = rotary_emb[0].float(), rotary_emb[1].float()
        q, k, v = self_attention_inputs(attn, hidden_states, rotary)
        output = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return attn.to_out[0](output)


@dataclass(frozen=True)
class Latents:
    """Normalised latents float16 (clips, 16, 5, 16, 16), and which row of `contexts` is each clip's caption.

    contexts: float32 (captions + 1, tokens, width); row 0 is the empty caption.
    """

    values: Tensor
    caption: Tensor
    contexts: Tensor


@torch.no_grad()
def encode_clips(
    vae: AutoencoderKLWan, first: int, count: int, device: str, compiled: bool
) -> tuple[Tensor, list[str]]:
    """VAE latents (posterior means, not normalised) of clips, float16, and their captions."""
    encode = torch.compile(single_pass.encode) if compiled else single_pass.encode
    parts, captions = [], []
    chunk = 64
    for i in range(0, count, chunk):
        data = clips(first + i, min(chunk, count - i), device)
        with torch.autocast(device, torch.bfloat16):
            mean, _ = encode(vae, signed(data.video))
        parts.append(mean.half())
        captions += [str(c) for c in data.captions]
    return torch.cat(parts), captions


def channel_statistics(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each latent channel, (16,) each."""
    values = latents.float().transpose(0, 1).flatten(1)
    return values.mean(1), values.std(1)


def with_contexts(latents: Tensor, mean: Tensor, std: Tensor, captions: list[str], text: TextEncoder) -> Latents:
    """Normalise latents by channel, as the hosts will, and give each clip its caption's context."""
    distinct = ["", *sorted(set(captions))]
    row = {caption: i for i, caption in enumerate(distinct)}
    mean, std = (v.view(1, -1, 1, 1, 1) for v in (mean, std))
    values = torch.cat([((part.float() - mean) / std).half() for part in latents.split(1024)])
    caption = torch.tensor([row[c] for c in captions], device=latents.device)
    return Latents(values, caption, text.encode(distinct).to(latents.device))


def flow_loss(model: WanTransformer3DModel, clean: Tensor, noise: Tensor, sigma: Tensor, context: Tensor) -> Tensor:
    """Mean squared error of the velocity noise - clean at x = (1 - sigma) clean + sigma noise."""
    s = sigma.view(-1, 1, 1, 1, 1)
    with torch.autocast(clean.device.type, torch.bfloat16):
        velocity = model((1 - s) * clean + s * noise, 1000 * sigma, context, return_dict=False)[0]
    return ((velocity.float() - (noise - clean)) ** 2).mean()


def noise_levels(count: int, generator: torch.Generator, device: str) -> Tensor:
    """Stratified uniform levels under Wan's timestep shift, s u / (1 + (s - 1) u)."""
    u = torch.arange(count, device=device) + torch.rand(count, generator=generator, device=device)
    u = u / count
    return SHIFT * u / (1 + (SHIFT - 1) * u)


def train(
    data: Latents, held: Latents, steps: int, batch: int, work: Path, deadline: float, device: str, compiled: bool
) -> WanTransformer3DModel:
    """Train; returns the exponential average of the weights."""
    torch.manual_seed(0)
    model = new_transformer().to(device)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.999), use_buffers=False
    )
    inner = {name: p.ndim == 2 and name.startswith("blocks.") for name, p in model.named_parameters()}
    muon = Muon([p for name, p in model.named_parameters() if inner[name]], lr=MATRIX_RATE)
    adam = torch.optim.AdamW(
        [p for name, p in model.named_parameters() if not inner[name]],
        lr=OTHER_RATE,
        betas=(0.9, 0.98),
        weight_decay=0.0,
    )
    stage = Stage("transformer", steps, work, deadline, model=model, average=average, muon=muon, adam=adam)
    if compiled and stage.progress < 1:
        for block in model.blocks:
            block.attn1.set_processor(FusedSelfAttention())
        model.compile_repeated_blocks()
    for step in stage:
        generator = stage.generator(device)
        index = torch.randint(len(data.values), (batch,), generator=generator, device=device)
        clean = data.values[index].float()
        noise = torch.randn(clean.shape, generator=generator, device=device)
        dropped = torch.rand(batch, generator=generator, device=device) < DROPPED
        context = data.contexts[data.caption[index].masked_fill(dropped, 0)]
        value = flow_loss(model, clean, noise, noise_levels(batch, generator, device), context)
        value.backward()
        for optimizer, rate in ((muon, MATRIX_RATE), (adam, OTHER_RATE)):
            optimizer.param_groups[0]["lr"] = rate * learning_rate(stage.progress)
            optimizer.step()
            optimizer.zero_grad()
        average.update_parameters(model)
        if step % 250 == 0:
            stage.log(loss=value.item(), held_out=held_out_loss(average.module, held, device))
    stage.log(held_out=held_out_loss(average.module, held, device))
    return average.module.eval()


@torch.no_grad()
def held_out_loss(model: WanTransformer3DModel, held: Latents, device: str) -> float:
    """The loss on held-out clips, always at the same noise and levels."""
    generator = torch.Generator(device).manual_seed(0)
    clean = held.values.float()
    noise = torch.randn(clean.shape, generator=generator, device=device)
    levels = noise_levels(len(clean), generator, device)
    return flow_loss(model, clean, noise, levels, held.contexts[held.caption]).item()

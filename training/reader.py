"""Stage `probe`: the attribute probe, on rendered clips and on their VAE reconstructions alike."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from torch import Tensor

from vdit_core.demo.probe import AttributeProbe, Reading

from .autoencoder import reconstruct
from .clips import PIXELS, Clips, clips
from .muon import Muon
from .stage import Stage, learning_rate
from .world import Truth

LENGTHS = ("x", "y", "width", "height", "horizon", "pan")
CLASSES = ("object", "colour", "place", "season")


def take(truth: Truth, index: Tensor) -> dict[str, Tensor]:
    """What is true of some clips, by name."""
    return {name: getattr(truth, name)[index] for name in LENGTHS + CLASSES}


def loss(reading: Reading, truth: dict[str, Tensor]) -> Tensor:
    """Huber loss on lengths (4 px is one unit), cross entropy on classes."""
    lengths = [F.smooth_l1_loss(getattr(reading, k) / 4, truth[k] / 4) for k in LENGTHS]
    classes = [F.cross_entropy(getattr(reading, k), truth[k]) for k in CLASSES]
    return torch.stack(lengths + classes).sum()


def errors(reading: Reading, truth: dict[str, Tensor]) -> dict[str, float]:
    """Mean absolute error of lengths in px, share of classes that are right."""
    figures = {k: (getattr(reading, k) - truth[k]).abs().mean().item() for k in LENGTHS}
    return figures | {k: (getattr(reading, k).argmax(1) == truth[k]).float().mean().item() for k in CLASSES}


def train(
    vae: AutoencoderKLWan, steps: int, pool: int, batch: int, work: Path, deadline: float, device: str, compiled: bool
) -> AttributeProbe:
    """Train the probe; half of each batch has been through the VAE, all of it gets noise and a change of light."""
    torch.manual_seed(0)
    probe = AttributeProbe().to(device)
    inner = {name: p.ndim == 5 and p.shape[0] == p.shape[1] for name, p in probe.named_parameters()}
    muon = Muon([p for name, p in probe.named_parameters() if inner[name]], lr=5e-3)
    adam = torch.optim.AdamW([p for name, p in probe.named_parameters() if not inner[name]], lr=2e-3, weight_decay=0.0)
    stage = Stage("probe", steps, work, deadline, probe=probe, muon=muon, adam=adam)
    if stage.progress == 1:
        return probe.eval()

    data = clips(PIXELS, pool, device)
    with torch.autocast(device, torch.bfloat16):
        seen = torch.cat([reconstruct(vae, part) for part in data.video.split(16)])
    held = held_out(vae, device)
    read = torch.compile(probe) if compiled else probe
    for step in stage:
        generator = stage.generator(device)
        index = torch.randint(pool, (batch,), generator=generator, device=device)
        video = torch.cat([data.video[index[: batch // 2]], seen[index[batch // 2 :]]]).float() / 255
        gain = 1 + 0.1 * torch.randn(batch, 3, 1, 1, 1, generator=generator, device=device)
        noise = torch.randn(video.shape, generator=generator, device=device)
        with torch.autocast(device, torch.bfloat16):
            reading = read(video * gain + 0.03 * noise)
        loss(reading, take(data.truth, index)).backward()
        for optimizer, rate in ((muon, 5e-3), (adam, 2e-3)):
            optimizer.param_groups[0]["lr"] = rate * learning_rate(stage.progress)
            optimizer.step()
            optimizer.zero_grad()
        if step % 200 == 0:
            stage.log(**evaluate(probe, held))
    stage.log(**evaluate(probe, held))
    return probe.eval()


def held_out(vae: AutoencoderKLWan, device: str, count: int = 128) -> Clips:
    """Held-out clips as they come back from the VAE."""
    data = clips(0, count, device)
    video = torch.cat([reconstruct(vae, part) for part in data.video.split(16)])
    return Clips(video, data.captions, data.truth)


@torch.no_grad()
def evaluate(probe: AttributeProbe, held: Clips) -> dict[str, float]:
    """The probe's errors on clips with known truth."""
    readings = [probe(part.float() / 255) for part in held.video.split(32)]
    merged = Reading(**{k: torch.cat([getattr(r, k) for r in readings]) for k in LENGTHS + CLASSES})
    return errors(merged, take(held.truth, torch.arange(len(held.video), device=held.video.device)))

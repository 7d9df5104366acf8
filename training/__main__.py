"""Trains the demo model from nothing: `python -m training --work FOLDER`.

Stages: vae, probe, latents, transformer, export. Each saves itself; a call that runs out of its --seconds exits with
status 75, and the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from vdit_core.demo.model import DemoModel
from vdit_core.demo.probe import AttributeProbe
from vdit_core.tiny_wan.text import TextEncoder

from . import autoencoder, reader, transformer
from .clips import HELD_OUT, LATENTS
from .export import export
from .quality import figures
from .stage import OutOfTime

GO_ON = 75


def main() -> int:
    """Runs the stages that are left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="checkpoints, log and result")
    parser.add_argument("--seconds", type=float, default=1e9, help="save and stop after this long")
    parser.add_argument("--until", choices=("vae", "probe", "latents", "transformer"), help="stop after this stage")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--eager", action="store_true", help="do not compile")
    parser.add_argument("--vae-steps", type=int, default=4700)
    parser.add_argument("--vae-batch", type=int, default=8)
    parser.add_argument("--pool", type=int, default=6400, help="rendered clips for the VAE and the probe")
    parser.add_argument("--probe-steps", type=int, default=1500)
    parser.add_argument("--probe-batch", type=int, default=64)
    parser.add_argument("--clips", type=int, default=40960, help="clips for the transformer")
    parser.add_argument("--steps", type=int, default=10188, help="steps of the transformer")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--samples", type=int, default=256, help="held-out clips for the final figures")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    try:
        train(options)
    except OutOfTime as stop:
        print(f"{stop} Run the same command again to go on.")
        return GO_ON
    return 0


def train(options: argparse.Namespace) -> None:
    """Run the stages that are not done yet."""
    work, device = options.work, options.device
    end = {"deadline": time.monotonic() + options.seconds, "work": work, "device": device}
    compiled = not options.eager

    vae = autoencoder.train(options.vae_steps, options.pool, options.vae_batch, **end, compiled=compiled)
    if options.until == "vae":
        return
    probe = reader.train(vae, options.probe_steps, options.pool, options.probe_batch, **end, compiled=compiled)
    if options.until == "probe":
        return

    text = TextEncoder.random()
    latents_file = work / "latents.pt"
    if not latents_file.exists():
        latents, captions = transformer.encode_clips(vae, LATENTS, options.clips, device, compiled)
        held = transformer.encode_clips(vae, HELD_OUT, min(512, options.clips), device, compiled)
        torch.save((latents.cpu(), captions, held[0].cpu(), held[1]), latents_file)
    latents, captions, held_latents, held_captions = torch.load(latents_file, map_location=device, weights_only=True)
    mean, std = transformer.channel_statistics(latents)
    data = transformer.with_contexts(latents, mean, std, captions, text)
    held_out = transformer.with_contexts(held_latents, mean, std, held_captions, text)
    if options.until == "latents":
        return

    model = transformer.train(data, held_out, options.steps, options.batch, **end, compiled=compiled)
    if options.until == "transformer":
        return
    autoencoder.fold_statistics(vae, mean, std)
    folder = work / "weights"
    export(model, vae, probe, text, folder)
    shipped = DemoModel.load(device, folder)
    result = figures(
        shipped, AttributeProbe.load(folder / "attribute_probe.safetensors").to(device), device, options.samples
    )
    (work / "figures.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())

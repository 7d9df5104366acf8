"""The figures of the model card: how well the trained parts do on what they were not trained on."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from vdit_core.demo.model import DemoModel
from vdit_core.demo.probe import AttributeProbe
from vdit_core.tiny_wan.captions import Caption

from .autoencoder import reconstruction_psnr
from .clips import HELD_OUT, clips
from .reader import evaluate, held_out
from .world import random_captions

BATCH = 64


def figures(model: DemoModel, probe: AttributeProbe, device: str, samples: int) -> dict[str, dict[str, float]]:
    """VAE reconstruction, the probe's errors, and how often generated clips show what their captions say."""
    held = clips(HELD_OUT, samples, device)
    psnr = [reconstruction_psnr(model.pipe.vae, part) for part in held.video.split(8)]
    return {
        "vae": {"psnr": sum(psnr) / len(psnr)},
        "probe": evaluate(probe, held_out(model.pipe.vae, device, samples)),
        "generated": agreement(model, probe, random_captions(torch.arange(samples))),
    }


@torch.no_grad()
def agreement(model: DemoModel, probe: AttributeProbe, captions: list[Caption]) -> dict[str, float]:
    """Share of generated clips in which the probe sees the caption's object, place, season and named colour."""
    right: dict[str, list[bool]] = {"object": [], "place": [], "season": [], "colour": []}
    for first in range(0, len(captions), BATCH):
        wanted = captions[first : first + BATCH]
        video = model.generate([str(c) for c in wanted], list(range(first, first + len(wanted))))
        reading = probe(video)
        for attribute, results in right.items():
            results += _hits(wanted, attribute, reading.names(attribute))
    return {attribute: sum(results) / len(results) for attribute, results in right.items()}


def _hits(captions: list[Caption], attribute: str, seen: list[str]) -> Iterator[bool]:
    for caption, name in zip(captions, seen, strict=True):
        if (wanted := getattr(caption, attribute)) is not None:
            yield wanted == name

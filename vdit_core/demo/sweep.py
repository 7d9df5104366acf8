"""The layer sweep on the demo model: its sampler, its decoder, and what the probe reads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..call import ModelSignature
from ..head_mask import HeadMask
from ..hosts.diffusers import attach
from ..selection import LayerMask
from ..sweep.groups import HEAD_MODES, groups
from ..sweep.plan import PLAIN, SOURCE, Sweep
from ..sweep.run import Sample
from ..tiny_wan.captions import Caption, NotACaption
from ..tiny_wan.files import GUIDANCE, STEPS, TRANSFORMER, WEIGHTS
from ..transfer import LiveTransfer, TransferConfig
from .model import DemoModel
from .pairs import apart, edits
from .probe import AttributeProbe


def signature(model: DemoModel) -> ModelSignature:
    """Layers and heads of the demo model."""
    config = model.pipe.transformer.config
    return ModelSignature(config.num_layers, config.num_attention_heads, config.attention_head_dim)


def plan(
    model: DemoModel,
    source: str,
    target: str,
    mode: str = "each",
    where: TransferConfig | None = None,
    seed: int = 1,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    mask: LayerMask | HeadMask | None = None,
    text: str = "",
) -> Sweep:
    """A sweep over layers or head groups of the demo model; its settings name the model's weights.

    mask, text: what the rows of `HEAD_MODES` are made of, see `sweep.groups.groups`.

    Raises:
        UnknownWord: if a prompt has a word that the model never saw.
        SelectionError: if `where` names steps or heads that are not there, or a head group cannot be used.
        ValueError: if there is no such mode.
    """
    model.text.encode([source, target])
    weights = hashlib.sha256((WEIGHTS / TRANSFORMER).read_bytes()).hexdigest()[:16]
    host: dict[str, str | int | float] = {"model": f"{TRANSFORMER} {weights}", "device": model.device.type}
    host |= {"seed": seed, "steps": steps, "guidance": guidance}
    shape = signature(model)
    rows = groups(mode, shape, mask, text) if mode in HEAD_MODES else ()
    return Sweep(source, target, shape.layers, mode, where or TransferConfig(), host, rows)


def sampler(
    model: DemoModel,
    seed: int = 1,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    on_step: Callable[[int], None] | None = None,
) -> Sample:
    """The demo model as a sweep's sampler; `on_step` is told after each step how many videos took it."""

    def sample(prompts: Sequence[str], transfer: LiveTransfer) -> Tensor:
        def step() -> None:
            if on_step:
                on_step(len(prompts))

        with attach(model.pipe, transfer):
            return model.sample(prompts, [seed] * len(prompts), steps=steps, guidance=guidance, on_step=step)

    return sample


def worker(device: str, seed: int, steps: int, guidance: float) -> Sample:
    """`sampler` with a model of its own: what a Ray worker starts with."""
    return sampler(DemoModel.load(device), seed, steps, guidance)


def decode(model: DemoModel, latents: Tensor) -> Tensor:
    """Clips on the CPU, one at a time: a batch's feature maps outgrow a CPU's cache and take half as long again."""
    return torch.cat([model.decode(one.to(model.device)).cpu() for one in latents.split(1)])


@torch.no_grad()
def readings(probe: AttributeProbe, target: str, clips: Tensor) -> list[dict[str, float]]:
    """Each video against the source, from the plain target on: the distances of `pairs.DISTANCES` in px, and 0 or 1 for
    each thing that the target's caption names, if it is one: whether the probe sees it."""
    device = next(probe.parameters()).device
    seen = [probe(clip.to(device)) for clip in clips.split(1)]
    try:
        wanted = Caption.parse(target)
    except NotACaption:
        wanted = None
    found = []
    for n in range(PLAIN, len(clips)):
        found.append(apart(seen[SOURCE], seen[n]) | (edits(wanted, seen[n]) if wanted else {}))
    return found

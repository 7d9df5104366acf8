"""Sinks of the demo model: measured on one video of it, with sinks planted if wanted, and what their absence does."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..call import Chain, Interceptor
from ..hosts.diffusers import attach
from ..sinks.ablation import SampleClip
from ..sinks.observer import SinkObserver
from ..sinks.plant import PlantedSinks
from ..sinks.record import SinkRecord
from ..tiny_wan.files import GUIDANCE, STEPS
from .model import DemoModel
from .sweep import decode

#: The positive control: (layer, head) -> token -> share of all attention. Places of the first frame, as Wan2.1's are
#: reported to be, in heads whose maps are soft enough for all queries to take part.
PLANTED = {(1, 0): {0: 0.3}, (3, 1): {0: 0.4, 9: 0.12}, (6, 0): {63: 0.2}}


def measure(
    model: DemoModel,
    prompt: str,
    planted: PlantedSinks | None = None,
    seed: int = 1,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    on_step: Callable[[], None] | None = None,
) -> tuple[SinkRecord, Tensor]:
    """The record of one video, and its clip (1, 3, frames, height, width)."""
    observer = SinkObserver()
    with attach(model.pipe, *([planted] if planted else []), observer):
        latents = model.sample([prompt], [seed], steps=steps, guidance=guidance, on_step=on_step)
    return observer.record, decode(model, latents)


def sampler(model: DemoModel, prompt: str, seed: int = 1, steps: int = STEPS, guidance: float = GUIDANCE) -> SampleClip:
    """One clip at a time, as `ablation.run` takes it."""

    def sample(editor: Interceptor | None) -> Tensor:
        with attach(model.pipe, Chain([editor] if editor else [])):
            latents = model.sample([prompt], [seed], steps=steps, guidance=guidance)
        return decode(model, latents)

    return sample

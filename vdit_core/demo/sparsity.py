"""Sparsity on the demo model: measuring its profile, and the videos that come of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..call import ModelSignature
from ..hosts.diffusers import attach
from ..selection import Indices
from ..sparse.ablation import LayerAblation, SampleDensities, measure
from ..sparse.calibration import Calibration, LocalErrors
from ..sparse.config import SparseConfig
from ..sparse.quality import SampleOne
from ..sparse.sparse_attention import SparseAttention
from ..tiny_wan.files import GUIDANCE, STEPS
from .model import DemoModel
from .sweep import decode

#: At every how many steps local errors are measured.
EVERY = 5


def whole(method: str) -> SparseConfig:
    """SparseConfig under which nothing but the keep decides: no step is dense, and maps are small here."""
    return SparseConfig(method, dense_first=0.0, minimum_tokens=0, if_slower="sparse")


def signature(model: DemoModel) -> ModelSignature:
    """The shape of the demo model, as a profile has it."""
    config = model.pipe.transformer.config
    return ModelSignature(len(model.pipe.transformer.blocks), config.num_attention_heads, config.attention_head_dim)


def local_errors(
    model: DemoModel,
    method: str,
    prompt: str,
    seed: int = 1,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    on_step: Callable[[], None] | None = None,
) -> LocalErrors:
    """From one dense run."""
    observer = Calibration(method, Indices(f"0-{steps - 1}/{EVERY}"))
    with attach(model.pipe, observer):
        model.sample([prompt], [seed], steps=steps, guidance=guidance, on_step=on_step)
    return observer.found


def sampler(
    model: DemoModel,
    method: str,
    prompt: str,
    seed: int = 1,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    on_step: Callable[[int], None] | None = None,
) -> SampleDensities:
    """Videos under tables of keep; `on_step` is told after each step how many videos took it."""

    def sample(densities: Sequence[np.ndarray]) -> Tensor:
        def step() -> None:
            if on_step:
                on_step(len(densities))

        editor = SparseAttention(whole(method), [torch.from_numpy(density) for density in densities])
        count = len(densities)
        with attach(model.pipe, editor):
            latents = model.sample([prompt] * count, [seed] * count, steps=steps, guidance=guidance, on_step=step)
        return decode(model, latents)

    return sample


def ablate(model: DemoModel, method: str, level: float, sample: SampleDensities) -> LayerAblation:
    """The cost of masking each layer in the video; see `sparse.ablation.measure`."""
    return measure(signature(model), level, sample)


def sample_one(
    model: DemoModel, prompt: str, seed: int = 1, steps: int = STEPS, guidance: float = GUIDANCE
) -> SampleOne:
    """One video at a time, as `quality.compare` takes it."""

    def sample(editor: SparseAttention | None) -> Tensor:
        with attach(model.pipe, *([] if editor is None else [editor])):
            return model.sample([prompt], [seed], steps=steps, guidance=guidance)

    return sample

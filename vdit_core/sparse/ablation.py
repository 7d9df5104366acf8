"""What leaving parts of maps out costs in the video: the paper's experiment (section "Sparsity" of arXiv 2504.10317).

One video is sampled dense, with each layer alone masked, with all layers masked, and with all but the worst n. All are
rows of one batch from the same noise, scored against the dense one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from .. import metrics
from ..call import ModelSignature
from .calibration import LocalErrors

#: A host's sampler: densities (layers, heads), one per video -> their clips, float in [0, 1],
#: (videos, 3, frames, height, width). All start from the same noise and have the same prompt.
SampleDensities = Callable[[Sequence[np.ndarray]], Tensor]


@dataclass(frozen=True, eq=False)
class Case:
    """A video and how near it is to the dense one; density: (layers, heads)."""

    label: str
    density: np.ndarray
    quality: metrics.Quality

    @property
    def error(self) -> float:
        """The mean squared error that its PSNR stands for."""
        return 10 ** (-self.quality.psnr / 10)


@dataclass(frozen=True, eq=False)
class LayerAblation:
    """What masking costs the video.

    level: the density of masked layers. alone: each layer masked alone, in the layers' order.
    everything: all masked. all_but: all masked but the worst n, for n = 1, 2, ...
    """

    level: float
    alone: tuple[Case, ...]
    everything: Case
    all_but: tuple[Case, ...]

    @property
    def worst(self) -> list[int]:
        """All layers, the worst first."""
        return _worst_first(self.alone)

    def weights(self, local: LocalErrors) -> np.ndarray:
        """What an error of each layer's output costs in the video: float64 (layers,), 1 on average.

        Both are measured at `level`, the local one as the nearest of its levels has it.
        """
        nearest = int(np.abs(np.array(local.levels) - self.level).argmin())
        caused = local.plain[:, :, nearest].sum(1)
        found = np.array([case.error for case in self.alone]) / np.maximum(caused, caused.max() * 1e-6)
        return found / found.mean()


def cases(model: ModelSignature, level: float) -> list[tuple[str, np.ndarray]]:
    """The dense video, each layer masked alone, all masked: labels and densities, layers + 2."""
    whole = np.ones((model.layers, model.heads))
    tables = [("dense", whole)]
    for layer in range(model.layers):
        tables.append((f"layer {layer} masked", _masked(whole, [layer], level)))
    return [*tables, ("all masked", np.full_like(whole, level))]


def measure(model: ModelSignature, level: float, sample: SampleDensities, max_spared: int = 4) -> LayerAblation:
    """Sample and score all videos: layers + 2, then max_spared + 1 more.

    level: the density of masked layers. max_spared: at most so many layers are left whole.
    """
    first = _scored(cases(model, level), sample)
    alone, everything = first[:-1], first[-1]
    worst = _worst_first(alone)
    whole = np.ones((model.layers, model.heads))
    spared = [("dense", whole)]
    for n in range(1, min(max_spared, model.layers - 1) + 1):
        names = ", ".join(map(str, sorted(worst[:n])))
        spared.append((f"all but {names}", _masked(whole, worst[n:], level)))
    return LayerAblation(level, tuple(alone), everything, tuple(_scored(spared, sample)))


def _masked(whole: np.ndarray, layers: Sequence[int], level: float) -> np.ndarray:
    table = whole.copy()
    table[list(layers)] = level
    return table


def _worst_first(alone: Sequence[Case]) -> list[int]:
    return sorted(range(len(alone)), key=lambda layer: alone[layer].quality.psnr)


def _scored(tables: Sequence[tuple[str, np.ndarray]], sample: SampleDensities) -> list[Case]:
    """All but the first, against the first."""
    clips = sample([density for _, density in tables])
    return [
        Case(label, density, metrics.quality(clips[:1], clips[n : n + 1]))
        for n, (label, density) in enumerate(tables[1:], start=1)
    ]

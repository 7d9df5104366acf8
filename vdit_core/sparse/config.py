"""What a user says of sparse attention, and which calls of a run that means."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..call import Run
from ..head_mask import HeadMask, head_strengths
from ..selection import LayerMask
from . import presets
from .density_profile import DensityProfile
from .methods import METHODS
from .profile import SparseProfile

#: What to do where a method is not faster than the dense attention.
IF_SLOWER = ("dense", "sparse")


@dataclass(frozen=True)
class SparseConfig:
    """What a user says.

    method: one of `methods.METHODS`.
    density: the share of each map that is computed, from 0 to 1; for top-p methods the mass to be reached. 1 is the
        stock result, bit for bit. With a profile it is the mean over layers and heads.
    profile: how the density is spent on layers and heads.
    preset: which published profile spends it if there is no `profile`, one of `presets.CHOICES`: a name, "none", or
        "auto", the one that fits the model, if any does and the method is one of `methods.BY_STRENGTH`.
    dense_layers: layers, or heads of them, that are computed whole; at a strength s below 1, that part of the way from
        density to whole.
    dense_first, dense_last: the share of the steps, from 0 to 1, that are computed whole.
    temperature: of all heads that are not dense; multiplies the profile's.
    first_frame: whether blocks of the first frame are always kept.
    minimum_tokens: smaller maps are computed whole.
    if_slower: "dense", or "sparse" to see what the method does.

    Raises:
        ValueError: for a value out of range, naming it.
    """

    method: str = "block top-k"
    density: float = 0.3
    profile: SparseProfile | DensityProfile | None = None
    dense_layers: LayerMask | HeadMask = field(default_factory=lambda: LayerMask("none"))
    dense_first: float = 0.1
    dense_last: float = 0.0
    temperature: float = 1.0
    first_frame: bool = False
    minimum_tokens: int = 4096
    if_slower: str = "dense"
    preset: str = presets.NONE

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"There is no method {self.method!r}; the methods are {', '.join(METHODS)}.")
        if self.if_slower not in IF_SLOWER:
            raise ValueError(f"if_slower is {self.if_slower!r}; it is {' or '.join(IF_SLOWER)}.")
        if self.preset not in presets.CHOICES:
            raise ValueError(f"There is no preset {self.preset!r}; the presets are {', '.join(presets.CHOICES)}.")
        for name in ("density", "dense_first", "dense_last"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a share, from 0 to 1.")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"The temperature is {self.temperature}, and must be above 0.")

    def resolve(self, run: Run) -> ResolvedSparse:
        """The calls of a run that are meant.

        Raises:
            SelectionError: if a dense layer or head is out of range.
            ProfileError: if the profile, or the preset that is named, is of another model or method.
        """
        layers, heads = run.model.layers, run.model.heads
        density, temperature = (torch.full((layers, heads), value) for value in (self.density, self.temperature))
        profile, spent_by = self._profile(run)
        if profile is not None:
            densities = profile.densities(self.density)
            density = torch.from_numpy(densities).float()
            temperature = temperature * torch.from_numpy(profile.temperatures(densities)).float()
        for layer, of_heads in head_strengths(self.dense_layers, run.model).items():
            density[layer] += torch.tensor(of_heads) * (1 - density[layer])
        temperature[density >= 1] = 1.0
        first, last = (math.ceil(share * run.steps - 1e-9) for share in (self.dense_first, self.dense_last))
        return ResolvedSparse(density, temperature, frozenset(range(first, run.steps - last)), spent_by)

    def _profile(self, run: Run) -> tuple[SparseProfile | DensityProfile | None, str]:
        """What spends the density in a run, and how it is told."""
        if self.profile is not None:
            self.profile.check(run.model, self.method)
            return self.profile, f"the {self.profile.title}"
        found = presets.chosen(self.preset, self.method, run.model, run.kind, run.sigmas)
        return found, "" if found is None else f"the published {found.title}"


@dataclass(frozen=True, eq=False)
class ResolvedSparse:
    """What a `SparseConfig` means in one run.

    density: float32 (layers, heads), or (samples, layers, heads). temperature: float32 (layers, heads).
    steps: those that are not dense. spent_by: the profile that spends the density, "" if it is spent alike.
    """

    density: Tensor
    temperature: Tensor
    steps: frozenset[int]
    spent_by: str = ""

    def sparse_layers(self) -> frozenset[int]:
        """The layers of which anything is left out, or whose map another temperature changes."""
        edited = ((self.density < 1) | (self.temperature != 1)).any(-1)
        return frozenset(edited.reshape(-1, edited.shape[-1]).any(0).nonzero()[:, 0].tolist())

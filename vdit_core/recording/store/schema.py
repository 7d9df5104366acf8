"""What a store holds: the header that all its entries have in common, and the key of each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...call import ModelSignature, Site, TokenGrid
from ...errors import VDiTError
from ...provenance import Provenance
from .. import quantization as codec

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

TEXT = ".text"  # an entry's share of attention that went to text
#: The packed q and k of one call: tensors by their name's end, as `Header.parts` has them.
Entry = dict[str, Tensor]


class StoreError(VDiTError, ValueError):
    """A store does not hold what is asked of it."""


class StoreFileError(StoreError):
    """A file is not a whole and valid attention store."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of the model: its noise level, and how often the run had been at this level before."""

    sigma: float
    visit: int = 0


@dataclass(frozen=True)
class Key:
    """Which call an entry is of."""

    evaluation: Evaluation
    branch: str
    layer: int

    @classmethod
    def of(cls, site: Site, branch: str) -> Key:
        """Of a branch of the call that happens there."""
        return cls(Evaluation(site.sigma, site.visit), branch, site.layer)


@dataclass(frozen=True)
class Header:
    """What all entries of a store have in common.

    sigmas: the noise level of every step of the recorded run, recorded or not. heads: which heads each entry holds.
    samples: how many videos. dtype: of q and k in the model ("float32", "float16" or "bfloat16"). kind: `Run.kind`.
    made: how the run was sampled. Files of before these two fields have none. joint: whether each entry also holds the
    share of each map that went to text, float32 (samples, heads).
    """

    model: ModelSignature
    grid: TokenGrid
    sigmas: tuple[float, ...]
    heads: tuple[int, ...]
    samples: int
    quantization: str
    dtype: str
    kind: str = ""
    made: Provenance = field(default_factory=Provenance)
    joint: bool = False

    def values(self) -> str:
        """How queries and keys are kept, in words."""
        return self.dtype if self.quantization == "none" else f"{self.quantization} of {self.dtype}"

    def shape(self) -> tuple[int, int, int, int]:
        """The shape of one recorded q or k."""
        return self.samples, len(self.heads), self.grid.tokens, self.model.head_dim

    def parts(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Name suffix, shape and dtype of every tensor of one entry."""
        one = codec.layout(self.shape(), DTYPES[self.dtype], self.quantization)
        parts = {f".{name}{suffix}": spec for name in "qk" for suffix, spec in one.items()}
        return parts | ({TEXT: ((self.samples, len(self.heads)), torch.float32)} if self.joint else {})

    def entry_bytes(self) -> int:
        """What one entry (q and k of one layer, evaluation and branch) weighs."""
        return sum(math.prod(shape) * dtype.itemsize for shape, dtype in self.parts().values())

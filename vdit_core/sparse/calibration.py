"""What each head tolerates: how far its output moves when parts of its map are left out, from one dense run.

The observer computes a sample of each map's rows whole, then masked at several densities and temperatures; the error is
the mean squared difference of the outputs. What comes of that in the video is measured in `ablation`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..attention.reference import scores, strongest
from ..call import AttentionCall, ModelSignature, Proceed, Run, TokenGrid
from ..observer import RunObserver
from ..selection import Indices, ResolvedSelection, Selection
from .methods import EXACT, METHODS, TOP_P
from .patterns import PATTERNS
from .patterns.always import always
from .profile import SparseProfile
from .tiled import tile
from .tiling import tiles

LEVELS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8)
TEMPERATURES = (0.8, 0.9, 1.0, 1.1, 1.25)
_GAIN = 0.02  # of an error: less than that, and a temperature is left alone


@dataclass(frozen=True, eq=False)
class LocalErrors:
    """errors: float64 (layers, heads, temperatures, levels), mean squared error of the output. energy: float64 (layers,
    heads), mean square of the output itself."""

    model: ModelSignature
    method: str
    levels: tuple[float, ...]
    temperatures: tuple[float, ...]
    errors: np.ndarray
    energy: np.ndarray

    @property
    def plain(self) -> np.ndarray:
        """The errors at the model's own temperature: (layers, heads, levels)."""
        return self.errors[:, :, self.temperatures.index(1.0)]


@dataclass
class _Measured:
    """layers: for each layer its calls' errors and energies, float64 (heads, n), on the model's device."""

    run: Run
    method: str
    layers: list[list[Tensor]]

    def joined(self) -> LocalErrors:
        table = np.stack([torch.stack(layer).mean(0).cpu().numpy() for layer in self.layers])
        errors = table[..., :-1].reshape(*table.shape[:2], len(TEMPERATURES), len(LEVELS))
        return LocalErrors(self.run.model, self.method, LEVELS, TEMPERATURES, errors, table[..., -1])


class Calibration(RunObserver[_Measured]):
    """Measures while the model samples; changes nothing.

    Args:
        method: see `methods.METHODS`; those that reach a mass adapt by themselves and are not measured.
        steps: at which sampling steps. queries: how many random queries of each map stand for all.
        on_call: called after each measured call, to show progress or to raise an interrupt.

    Raises:
        ValueError: for a method that is not measured. In `begin`: SelectionError for steps out of range.
    """

    thing = "calibration"

    def __init__(
        self,
        method: str = "block top-k",
        steps: Indices | None = None,
        queries: int = 256,
        first_frame: bool = False,
        on_call: Callable[[], None] | None = None,
    ) -> None:
        if method not in METHODS or method in TOP_P:
            raise ValueError(
                f"The method {method!r} is not measured; those that are: "
                f"{', '.join(name for name in METHODS if name not in TOP_P)}."
            )
        super().__init__(Selection(steps=steps or Indices("all")))
        self.method, self.queries, self.first_frame, self.on_call = method, queries, first_frame, on_call

    @property
    def found(self) -> LocalErrors:
        """What the last run showed. Raises RuntimeError if that run has not ended, or did not end well."""
        return self.result.joined()

    @property
    def grid(self) -> TokenGrid:
        """Of the last run."""
        return self.result.run.grid

    def _start(self, run: Run, chosen: ResolvedSelection) -> _Measured:
        return _Measured(run, self.method, [[] for _ in range(run.model.layers)])

    def __call__(self, call: AttentionCall, proceed: Proceed) -> Tensor:
        assert self._filling is not None
        errors, energy = self._measure(call)
        self._filling.layers[call.site.layer].append(torch.cat([errors.flatten(1), energy[:, None]], dim=1))
        if self.on_call:
            self.on_call()
        return proceed(call)

    def _finish(self, measured: _Measured) -> _Measured | None:
        return measured if all(measured.layers) else None

    def _measure(self, call: AttentionCall) -> tuple[Tensor, Tensor]:
        """Of one call: (heads, temperatures, levels), and the energy (heads,); float64, means over rows and queries."""
        q, k, v = call.q, call.k, call.v
        rows, heads, tokens, _ = q.shape
        generator = torch.Generator().manual_seed(call.site.layer)
        chosen = torch.randperm(tokens, generator=generator)[: self.queries].sort().values.to(q.device)
        masks = self._block_masks(call) if self.method not in EXACT else None
        errors = torch.zeros(heads, len(TEMPERATURES), len(LEVELS), dtype=torch.float64, device=q.device)
        energy = torch.zeros(heads, dtype=torch.float64, device=q.device)
        values = v.to(torch.promote_types(q.dtype, torch.float32))
        for some, found in scores(q, k, chosen):
            weights = found.softmax(-1)
            whole = weights @ values
            energy += whole.square().mean((0, 3)).sum(-1)
            for n, level in enumerate(LEVELS):
                share = torch.full((rows, heads), level, device=q.device)
                mask = strongest(weights, share, "top-k") if masks is None else masks(n, some)
                for t, temperature in enumerate(TEMPERATURES):
                    part = (found / temperature).masked_fill(~mask, -math.inf).softmax(-1) @ values
                    errors[:, t, n] += (part - whole).square().mean((0, 3)).sum(-1)
        return errors / len(chosen), energy / len(chosen)

    def _block_masks(self, call: AttentionCall) -> Callable[[int, Tensor], Tensor]:
        """The tokens that given queries look at, at each level: bool (rows, heads, queries, tokens)."""
        plan = tiles(call.site.run.grid, call.q.device)
        tiled = tile(call.q, call.k, call.v, plan)
        kept, ones = always(plan, self.first_frame), torch.ones(call.q.shape[1], device=call.q.device)
        tables = [
            PATTERNS[self.method](tiled, torch.full((call.q.shape[1],), level), kept, ones).to_dense(plan.key_blocks)
            for level in LEVELS
        ]
        place = torch.empty_like(plan.permutation, dtype=torch.long)
        place[plan.permutation.long()] = torch.arange(len(plan.permutation), device=place.device)

        def masks(level: int, queries: Tensor) -> Tensor:
            return tables[level][:, :, place[queries] // plan.queries][..., place // plan.keys]

        return masks


def profile(
    local: LocalErrors,
    density: float,
    weights: np.ndarray | None = None,
    measured: dict[str, str | int | float] | None = None,
    tune: bool = True,
) -> SparseProfile:
    """The profile that local errors make.

    Args:
        density: the mean density it is made for.
        weights: float (layers,), what an error of each layer costs in the video (see `ablation`); None: all alike.
        tune: whether each head gets the temperature that fits its density best.
    """
    own, best = local.temperatures.index(1.0), local.errors.argmin(axis=2)
    errors = np.take_along_axis(local.errors, best[:, :, None], axis=2)[:, :, 0]
    gains = errors < local.plain * (1 - _GAIN) if tune else np.zeros(errors.shape, bool)
    best, errors = np.where(gains, best, own), np.where(gains, errors, local.plain)
    if weights is not None:
        errors = errors * weights[:, None, None]

    def plain(table: np.ndarray) -> tuple[tuple[tuple[float, ...], ...], ...]:
        return tuple(tuple(tuple(map(float, head)) for head in layer) for layer in table)

    return SparseProfile(
        model=local.model,
        method=local.method,
        density=density,
        levels=local.levels,
        errors=plain(errors),
        temperature=plain(np.array(local.temperatures)[best]),
        measured=measured or {},
    )

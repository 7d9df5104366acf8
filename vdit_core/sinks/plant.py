"""Planted sinks: a bias on the scores of known keys, the positive control of everything that looks for sinks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from ..call import AttentionCall, Interceptor, Proceed, Site
from .bias import to_mass

#: (layer, head) -> token -> a number of it.
ByHead = Mapping[tuple[int, int], Mapping[int, float]]


class PlantedSinks(Interceptor):
    """Gives chosen keys of chosen heads a mass, a share of all attention below 1, from all queries."""

    any_grid = True

    def __init__(self, masses: ByHead) -> None:
        self.masses = masses

    def wants(self, site: Site) -> bool:
        return any(layer == site.layer for layer, _ in self.masses)

    def __call__(self, call: AttentionCall, proceed: Proceed) -> Tensor:
        wanted = {head: dict(m) for (layer, head), m in self.masses.items() if layer == call.site.layer}
        bias = to_mass(call.q, call.k, wanted, call.bias)
        return proceed(replace(call, bias=bias if call.bias is None else call.bias + bias))

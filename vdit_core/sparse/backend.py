"""The attention function of one call, sparse: the ways to compute it, and which of them is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attention.autotune import Autotuner
from ..attention.multi_value import attend
from ..attention.reference import masked_attention
from ..call import AttentionCall, TokenGrid
from .block_mask import with_dense_queries
from .config import ResolvedSparse, SparseConfig
from .kernels import kernels_for
from .kernels.sol import Sol
from .methods import EXACT
from .patterns import PATTERNS
from .patterns.always import always, placeless
from .report import RunLog, SparseCall, now
from .rounding import errors
from .tiled import tile
from .tiling import tiles

#: Computes the output, and says which share of the map was computed.
Way = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor | float]]

_autotuner = Autotuner()


class SparseBackend:
    """Takes the place of the host's attention function for one call.

    Args:
        places: what the config means in this run. log: is told what is done.
    """

    any_width = True

    def __init__(self, config: SparseConfig, places: ResolvedSparse, log: RunLog, call: AttentionCall) -> None:
        self._config, self._places, self._log, self._call = config, places, log, call
        density, site = places.density, call.site
        samples = [row.sample for row in site.rows]
        self._density = density[site.layer] if density.dim() == 2 else density[samples, site.layer]
        self._temperature = places.temperature[site.layer]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        unseen = self._unseen()
        if unseen is None:
            return self._fastest(q, k, v)
        # The padding of a prompt: nothing looks at it, and what it looks at is of no consequence.
        output = q.new_empty(*q.shape[:3], v.shape[-1])
        output[:, :, ~unseen] = self._fastest(*(x[:, :, ~unseen] for x in (q, k, v)))
        output[:, :, unseen] = self._call.backend(q[:, :, unseen], k, v)
        return output

    def rows(self, rows: slice) -> SparseBackend:
        """Of some rows of the batch."""
        return SparseBackend(self._config, self._places, self._log, self._call.rows(rows))

    def _unseen(self) -> Tensor | None:
        """The padding of a prompt, bool (tokens,), the same for all rows; None if there is none."""
        found = None if self._call.joint is None else self._call.joint.left_out()
        return None if found is None or not found[0].any() else found[0]

    def _fastest(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """All tokens are seen."""
        config, device = self._config, q.device

        def dense() -> Tensor:
            return attend(q, k, v, self._host)

        ways = self._ways(q)
        kept = float(self._density.mean())
        kind = (config.method, tuple(ways), q.shape, v.shape, q.dtype, device, round(kept, 1))
        raced = [partial(way, q, k, v) for way in ways.values()]
        *times, whole = _autotuner.run(kind, (*raced, dense), device)
        name, taken = min(zip(ways, times, strict=True), key=lambda pair: pair[1])
        if taken >= whole and config.if_slower == "dense":
            self._log.dense(
                f"dense: {name} would take {taken / whole:.1f} times the dense attention's time here "
                f"({q.shape[2]} tokens at {kept:.0%})"
            )
            return dense()
        begin = now(device)
        name, out, computed = self._run(ways, name, q, k, v)
        branches = len({row.branch for row in self._call.site.rows})
        self._log.calls.append(SparseCall(branches, name, computed, whole, (begin, now(device))))
        return out

    def _run(self, ways: dict[str, Way], fastest: str, q: Tensor, k: Tensor, v: Tensor) -> tuple[str, Tensor, Any]:
        """What was taken, its output, and the share of the map that was computed.

        That is the fastest, if its rounding changes this layer's output less than what is left out does: measured in
        the layer's first call of a run.
        """
        exactest, layer, known = next(iter(ways)), self._call.site.layer, self._log.rounding
        if fastest == exactest or known.get(layer) is False:
            return exactest, *ways[exactest](q, k, v)
        out, computed = ways[fastest](q, k, v)
        if layer not in known:
            half, computed = ways[exactest](q, k, v)
            of_rounding, of_leaving_out = errors(q, k, v, half, out)
            known[layer] = of_rounding < of_leaving_out
            if not known[layer]:
                return exactest, half, computed
        return fastest, out, computed

    def _ways(self, q: Tensor) -> dict[str, Way]:
        """By name, the exactest first."""
        if self._config.method in EXACT:
            return {"exact masking": self._exact}
        return {kernel.name: partial(self._blocks, kernel) for kernel in kernels_for(q, self._config.method)}

    def _host(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The host's attention of the tokens that are seen; its own mask is of all of them."""
        joint = self._call.joint
        if joint is None or q.shape[2] == joint.q.shape[2]:
            return self._call.backend(q, k, v)
        return F.scaled_dot_product_attention(q, k, v)

    def _grid(self, tokens: int) -> TokenGrid:
        """The grid, with a prompt's tokens as ones without a place."""
        grid, joint = self._call.site.run.grid, self._call.joint
        if joint is None:
            return grid
        unseen = self._unseen()
        before = joint.q_start if unseen is None else int((~unseen[: joint.q_start]).sum())
        return replace(grid, prefix=grid.prefix + before, suffix=grid.suffix + tokens - grid.tokens - before)

    def _exact(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        rule, whole = EXACT[self._config.method], None
        if self._call.joint is not None:
            first, tokens = self._grid(q.shape[2]).prefix - self._call.site.run.grid.prefix, self._call.joint.tokens
            whole = torch.ones(q.shape[2], dtype=torch.bool, device=q.device)
            whole[first : first + tokens] = False
        out, kept = masked_attention(q, k, v, self._density, rule, self._temperature.to(q.device), whole=whole)
        return out, kept.mean()

    def _blocks(self, kernel: Any, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        plan = tiles(self._grid(q.shape[2]), q.device)
        kept = always(plan, self._config.first_frame)
        sharpness = self._temperature.reciprocal().to(q.device, non_blocking=True)
        tiled = tile(q, k, v, plan, kernel.int8)
        if isinstance(kernel, Sol):
            return kernel(tiled, self._density, sharpness), self._density.mean()
        mask = PATTERNS[self._config.method](tiled, self._density, kept, sharpness)
        mask = with_dense_queries(mask, placeless(plan), plan.key_blocks)
        return kernel(tiled, mask, sharpness), mask.density(plan.key_blocks).mean()

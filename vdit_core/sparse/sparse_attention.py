"""Sparse attention: an editor that computes a part of each map only (section "Sparsity" of arXiv 2504.10317).

It puts itself in the place of the host's attention function, so editors inside of it (a transfer, say) and the wide
values of a live transfer go through it as through any other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attention.autotune import Autotuner
from ..attention.multi_value import attend
from ..attention.reference import masked_attention
from ..call import AttentionCall, Interceptor, Proceed, Run, Site, TokenGrid
from ..coverage import Place
from ..joint_tokens import JointTokens
from ..outcome import Level, Verdict, done, failed, idle
from .block_mask import with_dense_queries
from .config import ResolvedSparse, SparseConfig
from .kernels import choose
from .kernels.sol import Sol
from .methods import EXACT
from .patterns import PATTERNS
from .patterns.always import always, placeless
from .tiled import tile
from .tiling import tiles

logger = logging.getLogger(__name__)
_autotuner = Autotuner()


@dataclass
class SparseReport:
    """What a run did. calls count layer x step x branch; steps and layers that were to be dense are not among them.

    density: of the sparse calls, mean. seconds: of these calls; dense_seconds: what they would have taken dense.
    why_dense: why calls that were to be sparse were not, or None. spent_by: the profile that spent the density, or "".
    """

    sparse: int = 0
    expected: int = 0
    of: int = 0
    density: float = 1.0
    seconds: float = 0.0
    dense_seconds: float = 0.0
    kernel: str = ""
    why_dense: str | None = None
    spent_by: str = ""

    def verdict(self) -> Verdict:
        """What a user is told: good only if all that was to be sparse was."""
        if not self.expected:
            return idle(str(self))
        if not self.sparse and self.why_dense is None:
            return failed("nothing was left out: no call came")
        if self.sparse < self.expected and self.why_dense is None:
            return done(str(self)).but(f"{self.expected - self.sparse} calls did not come")
        return Verdict(Level.DONE if self.why_dense is None else Level.PARTLY, str(self))

    @property
    def overall(self) -> float:
        """The share of all maps of the run that was computed."""
        return 1 - (1 - self.density) * self.sparse / self.of if self.of else 1.0

    def __str__(self) -> str:
        if not self.expected:
            return "nothing to leave out: the stock result"
        text = f"computed {self.overall:.0%} of all maps ({self.sparse} of {self.of} calls at {self.density:.0%})"
        if self.sparse and self.dense_seconds:
            ratio = self.dense_seconds / max(self.seconds, 1e-9)
            saved = self.dense_seconds - self.seconds
            text += f" by {self.kernel}, "
            text += (
                f"{ratio:.1f}x as fast as dense, {saved:.1f} s saved"
                if ratio >= 1
                else f"{ratio:.2f}x as fast as dense"
            )
        if self.sparse and self.spent_by:
            text += f", spent by {self.spent_by}"
        return f"{text}; {self.why_dense}" if self.why_dense else text


class SparseAttention(Interceptor):
    """Leaves parts of the maps out.

    Args:
        config: how much, how, and where.
        densities: for each sample of the batch its own density, float (layers, heads), instead of the config's. So one
            run samples a video at many densities.

    Raises (in `begin`):
        SelectionError, ProfileError: as `SparseConfig.resolve`.
        ValueError: if there are not as many densities as samples.
    """

    any_grid = True

    def __init__(self, config: SparseConfig | None = None, densities: Sequence[Tensor] | None = None) -> None:
        self.config = config or SparseConfig()
        self.densities = None if densities is None else torch.stack(list(densities)).float()
        self.one_noise = densities is not None  # such videos are compared
        self._places: ResolvedSparse | None = None
        self._layers: frozenset[int] = frozenset()
        self._report = SparseReport()
        self._seen: list[_Seen] = []
        self._came: set[Place] = set()
        self._run: Run | None = None
        self._told: set[str] = set()

    @property
    def report(self) -> SparseReport:
        """Of the last run."""
        return self._report

    def begin(self, run: Run) -> None:
        places = self.config.resolve(run)
        if self.densities is not None:
            shape = (run.samples, run.model.layers, run.model.heads)
            if tuple(self.densities.shape) != shape:
                raise ValueError(f"The densities have shape {tuple(self.densities.shape)}; this run needs {shape}.")
            places = replace(places, density=self.densities, spent_by="")
        self._places, self._layers, self._seen = places, places.sparse_layers(), []
        self._told.clear()
        self._came.clear()
        self._run, self._report = run, SparseReport(spent_by=places.spent_by)
        self._count()

    def wants(self, site: Site) -> bool:
        return self._places is not None and site.layer in self._layers and site.step in self._places.steps

    def __call__(self, call: AttentionCall, proceed: Proceed) -> Tensor:
        assert self._places is not None
        self._came |= {(call.site.layer, call.site.step, row.branch) for row in call.site.rows}
        tokens = call.site.run.grid.tokens
        if call.sparse_elsewhere:
            return self._dense(
                call, proceed, f"left to {call.sparse_elsewhere}, which leaves parts of these maps out already"
            )
        if call.bias is not None:
            return self._dense(call, proceed, "dense where Sink Control changes the scores of keys")
        if call.joint is not None and (why := _why_not_joint(call.joint)) is not None:
            return self._dense(call, proceed, why)
        if tokens < self.config.minimum_tokens:
            why = f"dense: {tokens} tokens are fewer than the minimum of {self.config.minimum_tokens}"
            return self._dense(call, proceed, why)
        if call.joint is not None and not _alike(call.joint.left_out()):  # each video's prompt has its own padding
            parts = [call.rows(slice(row, row + 1)) for row in range(len(call.q))]
            return torch.cat([proceed(replace(part, backend=_Backend(self, part))) for part in parts])
        return proceed(replace(call, backend=_Backend(self, call)))

    def _count(self) -> None:
        """How many calls there are, and how many of them were to be sparse. Which prompts a step computes is the
        guider's choice: in a step of which calls came these tell, in others what was planned."""
        run, places = self._run, self._places
        if run is None or places is None:
            return
        came = {(step, branch) for _, step, branch in self._came}
        computed = {step for step, _ in came}
        passes = [
            sum((step, branch) in came if step in computed else run.comes(step, branch) for branch in run.branches)
            for step in range(run.steps)
        ]
        self._report.of = run.model.layers * sum(passes)
        self._report.expected = len(self._layers) * sum(passes[step] for step in places.steps)

    def _dense(self, call: AttentionCall, proceed: Proceed, why: str) -> Tensor:
        if why not in self._told:
            logger.warning("VDiT Attention: sparse attention is %s.", why)
            self._told.add(why)
        self._report.why_dense = why
        return proceed(call)

    def end(self, completed: bool) -> None:
        self._count()
        seen, self._seen, self._places = self._seen, [], None
        report = self._report
        report.sparse = sum(one.calls for one in seen)
        if report.sparse:
            report.density = sum(one.density() * one.calls for one in seen) / report.sparse
            report.seconds = sum(one.seconds() for one in seen)
            report.dense_seconds = sum(one.dense for one in seen)


@dataclass
class _Seen:
    """One call that was sparse; its figures stay on the device until the run is over."""

    calls: int
    computed: Tensor | float
    dense: float
    clock: tuple[Any, Any]

    def density(self) -> float:
        return float(self.computed)

    def seconds(self) -> float:
        begin, end = self.clock
        if isinstance(begin, float):
            return end - begin
        end.synchronize()
        return begin.elapsed_time(end) / 1000


class _Backend:
    """The attention function of one call, sparse."""

    any_width = True

    def __init__(self, owner: SparseAttention, call: AttentionCall) -> None:
        self.owner, self.call = owner, call
        places, site = owner._places, call.site
        assert places is not None
        density = places.density
        self.density = (
            density[site.layer] if density.dim() == 2 else density[[row.sample for row in site.rows], site.layer]
        )
        self.temperature = places.temperature[site.layer]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        unseen = self._unseen()
        if unseen is None:
            return self._sparse(q, k, v)
        # The padding of a prompt: nothing looks at it, and what it looks at is of no consequence.
        output = q.new_empty(*q.shape[:3], v.shape[-1])
        output[:, :, ~unseen] = self._sparse(*(x[:, :, ~unseen] for x in (q, k, v)))
        output[:, :, unseen] = self.call.backend(q[:, :, unseen], k, v)
        return output

    def rows(self, rows: slice) -> _Backend:
        """Of some rows of the batch."""
        return _Backend(self.owner, self.call.rows(rows))

    def _unseen(self) -> Tensor | None:
        """The padding of a prompt, bool (tokens,), the same for all rows; None if there is none."""
        found = None if self.call.joint is None else self.call.joint.left_out()
        return None if found is None or not found[0].any() else found[0]

    def _sparse(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """All tokens are seen."""
        config, report = self.owner.config, self.owner._report

        def dense() -> Tensor:
            return attend(q, k, v, self._host)

        if config.method in EXACT:
            report.kernel, sparse = "exact masking", self._exact
        else:
            kernel = choose(q, config.method)
            report.kernel, sparse = kernel.name, partial(self._blocks, kernel)
        kept = float(self.density.mean())
        kind = (config.method, report.kernel, q.shape, v.shape, q.dtype, q.device, round(kept, 1))
        taken, whole = _autotuner.run(kind, (lambda: sparse(q, k, v)[0], dense), q.device)
        if taken >= whole and config.if_slower == "dense":
            why = (
                f"dense: {report.kernel} would take {taken / whole:.1f} times the dense attention's time here "
                f"({q.shape[2]} tokens at {kept:.0%})"
            )
            return self.owner._dense(self.call, lambda _: dense(), why)
        begin = _now(q.device)
        out, computed = sparse(q, k, v)
        branches = len({row.branch for row in self.call.site.rows})
        self.owner._seen.append(_Seen(branches, computed, whole, (begin, _now(q.device))))
        return out

    def _host(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The host's attention of the tokens that are seen; its own mask is of all of them."""
        joint = self.call.joint
        if joint is None or q.shape[2] == joint.q.shape[2]:
            return self.call.backend(q, k, v)
        return F.scaled_dot_product_attention(q, k, v)

    def _grid(self, tokens: int) -> TokenGrid:
        """The grid, with a prompt's tokens as ones without a place."""
        grid, joint = self.call.site.run.grid, self.call.joint
        if joint is None:
            return grid
        unseen = self._unseen()
        before = joint.q_start if unseen is None else int((~unseen[: joint.q_start]).sum())
        return replace(grid, prefix=grid.prefix + before, suffix=grid.suffix + tokens - grid.tokens - before)

    def _exact(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        rule, whole = EXACT[self.owner.config.method], None
        if self.call.joint is not None:
            first, tokens = self._grid(q.shape[2]).prefix - self.call.site.run.grid.prefix, self.call.joint.tokens
            whole = torch.ones(q.shape[2], dtype=torch.bool, device=q.device)
            whole[first : first + tokens] = False
        out, kept = masked_attention(q, k, v, self.density, rule, self.temperature.to(q.device), whole=whole)
        return out, kept.mean()

    def _blocks(self, kernel: Any, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        config = self.owner.config
        plan = tiles(self._grid(q.shape[2]), q.device)
        kept = always(plan, config.first_frame)
        sharpness = self.temperature.reciprocal().to(q.device, non_blocking=True)
        tiled = tile(q, k, v, plan)
        if isinstance(kernel, Sol):
            return kernel(tiled, self.density, sharpness), self.density.mean()
        mask = PATTERNS[config.method](tiled, self.density, kept, sharpness)
        mask = with_dense_queries(mask, placeless(plan), plan.key_blocks)
        return kernel(tiled, mask, sharpness), mask.density(plan.key_blocks).mean()


def _alike(left_out: Tensor | None) -> bool:
    return left_out is None or bool((left_out == left_out[:1]).all())


def _why_not_joint(joint: JointTokens) -> str | None:
    """Why a call with other tokens than the grid's stays dense, if it must."""
    if not joint.square or (joint.bias is not None and joint.left_out() is None):
        return "dense where the model gives guides a weight"
    return None


def _now(device: torch.device) -> Any:
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event

"""Sparse attention: an editor that computes a part of each map only (section "Sparsity" of arXiv 2504.10317).

It puts itself in the place of the host's attention function, so editors inside of it (a transfer, say) and the wide
values of a live transfer go through it as through any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..call import AttentionCall, Interceptor, Proceed, Run, Site
from ..coverage import Place
from ..joint_tokens import JointTokens
from .backend import SparseBackend
from .config import ResolvedSparse, SparseConfig
from .report import RunLog, SparseReport


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
        self._log = RunLog()
        self._came: set[Place] = set()
        self._run: Run | None = None

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
        self._places, self._layers, self._log = places, places.sparse_layers(), RunLog()
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
            return torch.cat([proceed(replace(part, backend=self._backend(part))) for part in parts])
        return proceed(replace(call, backend=self._backend(call)))

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

    def _backend(self, call: AttentionCall) -> SparseBackend:
        assert self._places is not None
        return SparseBackend(self.config, self._places, self._log, call)

    def _dense(self, call: AttentionCall, proceed: Proceed, why: str) -> Tensor:
        self._log.dense(why)
        return proceed(call)

    def end(self, completed: bool) -> None:
        self._count()
        log, self._log, self._places = self._log, RunLog(), None
        log.sum_up(self._report)


def _alike(left_out: Tensor | None) -> bool:
    return left_out is None or bool((left_out == left_out[:1]).all())


def _why_not_joint(joint: JointTokens) -> str | None:
    """Why a call with other tokens than the grid's stays dense, if it must."""
    if not joint.square or (joint.bias is not None and joint.left_out() is None):
        return "dense where the model gives guides a weight"
    return None

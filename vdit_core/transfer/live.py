"""Live transfer: source and targets in one batch, the source first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, groupby

import torch
from torch import Tensor

from ..call import AttentionCall, Proceed, Run, SharedMaps, Site
from ..coverage import Place, gaps
from ..selection import LayerMask
from .config import ResolvedTransfer, TransferConfig, TransferError
from .map_transfer import MapTransfer, TransferReport, put_rows

_ONE_NOISE = "Start all of the batch from the same noise: latents=noise.expand(...)."


class LiveTransfer(MapTransfer):
    """Source and targets in one batch: in each branch the map of sample 0 serves the other samples.

    Nothing is stored. Where all heads are replaced, the softmax is computed once for all rows' values. All samples need
    the same noise, at the start and in every step that adds some. The ComfyUI host sees to the latter; in diffusers
    give a stochastic scheduler a generator for each sample, all seeded alike.

    Args:
        where: layers, heads, steps and branches.
        footage: what the source is, (1, channels, frames, height, width) as the VAE gives it, instead of what the model
            makes of its prompt: it is noised to the level of each step with the noise that the run starts from.
        masks: a mask for each target, instead of `where.layers`: sample n takes the source's map in the layers of
            masks[n - 1] ("none": it runs as it is). So one run samples a target under many masks.

    Raises (in `begin`):
        TransferError: if the batch holds the source alone, if its samples start from other noise than the source, or if
            there are not as many masks as targets.
    """

    any_grid = True
    one_noise = True

    def __init__(
        self,
        where: TransferConfig | None = None,
        masks: Sequence[LayerMask] | None = None,
        footage: Tensor | None = None,
    ) -> None:
        super().__init__(where)
        self.driven = {} if footage is None else {0: footage}
        self.masks = None if masks is None else tuple(masks)
        self._strengths: list[dict[int, float]] = []  # of each sample, by layer

    def _resolve(self, run: Run) -> ResolvedTransfer:
        places, targets = self.where.resolve(run), run.samples - 1
        if self.masks is None:
            self._strengths = [{}] + [places.strengths] * targets
            return places
        if len(self.masks) != targets:
            raise TransferError(
                f"There are {len(self.masks)} layer masks for {targets} targets (a batch of {run.samples}, "
                "the source first): each target needs one."
            )
        of_targets = [replace(self.where, layers=mask).resolve(run).strengths for mask in self.masks]
        self._strengths = [{}, *of_targets]
        anywhere = {layer: strength for strengths in of_targets for layer, strength in strengths.items()}
        return replace(places, strengths=anywhere)

    @property
    def report(self) -> TransferReport:
        """Which prompts a step computes is the guider's choice; a step that computes none was left out."""
        if self._nothing is not None:
            return TransferReport(0, 0, nothing=self._nothing)
        layers, steps = {layer for layer, _, _ in self._came}, {step for _, step, _ in self._came}
        absent = {place for place in self._expected if place[0] not in layers or place[1] not in steps}
        meant = {layer for layer, _, _ in self._expected}, {step for _, step, _ in self._expected}
        causes = gaps(self._came, *meant)
        return TransferReport(len(self._replaced), len(self._came | absent), causes=tuple(causes))

    def _check(self, run: Run, places: ResolvedTransfer, planned: set[Place]) -> None:
        if run.samples < 2:
            raise TransferError(
                "Live transfer needs a batch of the source and at least one target; it holds one sample."
            )
        if not run.one_noise:
            raise TransferError(f"The targets start from other noise than the source. {run.noise_remedy or _ONE_NOISE}")
        self._expected |= planned

    def maps_from(self, site: Site) -> tuple[int, ...] | None:
        assert self._places is not None
        if self._places.heads is not None:
            return None
        sources = {row.branch: i for i, row in enumerate(site.rows) if row.sample == 0}
        strengths = [self._strengths[row.sample].get(site.layer, 0.0) for row in site.rows]
        taken = [
            bool(strength) and row.branch in sources and row.branch in self._places.branches
            for row, strength in zip(site.rows, strengths, strict=True)
        ]
        if not any(taken) or any(0 < strength < 1 for strength in strengths):
            return None
        return tuple(
            sources[row.branch] if take else i for i, (row, take) in enumerate(zip(site.rows, taken, strict=True))
        )

    def __call__(self, call: AttentionCall, proceed: Proceed) -> Tensor:
        parts = [self._edit(part, proceed) for part in _by_branch(call)]
        if len(parts) == 1:
            return parts[0]
        return torch.cat(parts, out=torch.empty_like(call.v) if call.joint is None else None)

    def _edit(self, call: AttentionCall, proceed: Proceed) -> Tensor:
        """The output of a call of one branch."""
        assert self._places is not None
        rows, branch = call.site.rows, call.site.rows[0].branch
        source = next((i for i, row in enumerate(rows) if row.sample == 0), None)
        strengths = [self._strengths[row.sample].get(call.site.layer, 0.0) for row in rows]
        if source is None or branch not in self._places.branches or not any(strengths):
            return proceed(call)
        place = (call.site.layer, call.site.step, branch)
        self._came.add(place)
        self._replaced.add(place)
        takers = [i for i, strength in enumerate(strengths) if strength]
        edited = _with_map_of(call, source, takers, self._places.heads)
        blends = {strength for strength in strengths if 0 < strength < 1}
        if not blends:
            return proceed(edited)
        own, output = proceed(call), proceed(edited)
        for strength in blends:  # one at a time: a tensor of strengths would be rounded to the values' dtype
            alike = [i for i in takers if strengths[i] == strength]
            output[alike] = torch.lerp(own[alike], output[alike], strength)
        return output


def _by_branch(call: AttentionCall) -> list[AttentionCall]:
    """A call as one for each branch; the rows of a branch follow one another."""
    counts = [len(tuple(rows)) for _, rows in groupby(call.site.rows, lambda row: row.branch)]
    if len(counts) == 1:
        return [call]
    ends = list(accumulate(counts))
    return [call.rows(slice(end - count, end)) for count, end in zip(counts, ends, strict=True)]


def _with_map_of(call: AttentionCall, source: int, takers: list[int], heads: list[int] | None) -> AttentionCall:
    """A call in which some rows have the source's queries and keys; where these are all of theirs, they share a map."""
    if heads is not None:
        q, k = (put_rows(x, takers, heads, x[source, heads]) for x in (call.q, call.k))
        return replace(call, q=q, k=k)
    together = {source, *takers}
    if len(together) == len(call.q):
        q, k = (x[source : source + 1].expand_as(x) for x in (call.q, call.k))
    else:
        q, k = (put_rows(x, takers, None, x[source]) for x in (call.q, call.k))
    first = tuple(min(together) if row in together else row for row in range(len(q)))
    return replace(call, q=q, k=k, shared=SharedMaps(q, k, first))

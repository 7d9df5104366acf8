"""Live transfer: source and targets in one batch, the source first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, groupby

import torch
from torch import Tensor

from ..attention.blend import blend
from ..call import AttentionCall, Proceed, Run, SharedMaps, Site
from ..coverage import Place, gaps
from ..head_mask import HeadMask
from ..selection import LayerMask
from .config import ResolvedTransfer, TransferConfig, TransferError
from .map_transfer import MapTransfer, TransferReport, put_rows, replaced_heads

_ONE_NOISE = "Start all of the batch from the same noise: latents=noise.expand(...)."


class LiveTransfer(MapTransfer):
    """Source and targets in one batch: in each branch the map of sample 0 serves the other samples.

    Nothing is stored. The softmax is computed once for the values of all rows of which all heads are replaced. All
    samples need the same noise, at the start and in every step that adds some. The ComfyUI host sees to the latter; in
    diffusers give a stochastic scheduler a generator for each sample, all seeded alike.

    Args:
        where: layers, heads, steps and branches.
        masks: a mask for each target, instead of `where.layers`: sample n takes the source's map in the layers and
            heads of masks[n - 1] ("none": it runs as it is). So one run samples a target under many masks.
        footage: what the source is, (1, channels, frames, height, width) as the host has latents, instead of what the
            model makes of its prompt: it is noised to the level of each step with the noise that the run starts from.

    Raises (in `begin`):
        TransferError: if the batch holds the source alone, if its samples start from other noise than the source, or if
            there are not as many masks as targets.
    """

    any_grid = True
    one_noise = True

    def __init__(
        self,
        where: TransferConfig | None = None,
        masks: Sequence[LayerMask | HeadMask] | None = None,
        footage: Tensor | None = None,
    ) -> None:
        super().__init__(where)
        self.driven = {} if footage is None else {0: footage}
        self.masks = None if masks is None else tuple(masks)
        self._strengths: list[dict[int, tuple[float, ...]]] = []  # of each sample, by layer: of every head

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
        of_targets = [replace(self.where, layers=mask).resolve(run) for mask in self.masks]
        self._strengths = [{}, *(target.strengths for target in of_targets)]
        anywhere = {layer: of_heads for target in of_targets for layer, of_heads in target.strengths.items()}
        return replace(places, strengths=anywhere, no_strength=of_targets[0].no_strength)

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
                "Live transfer needs a batch of the source and at least one target; it holds one sample. In ComfyUI "
                "connect Live Transfer's own latent to the sampler."
            )
        if not run.one_noise:
            raise TransferError(f"The targets start from other noise than the source. {run.noise_remedy or _ONE_NOISE}")
        self._expected |= planned

    def maps_from(self, site: Site) -> tuple[int, ...] | None:
        assert self._places is not None
        sources = {row.branch: i for i, row in enumerate(site.rows) if row.sample == 0}
        strengths = [self._strengths[row.sample].get(site.layer, ()) for row in site.rows]
        taken = [
            bool(of_heads) and row.branch in sources and row.branch in self._places.branches
            for row, of_heads in zip(site.rows, strengths, strict=True)
        ]
        if not any(taken) or any(strength < 1 for of_heads in strengths for strength in of_heads):
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
        strengths = [self._strengths[row.sample].get(call.site.layer, ()) for row in rows]
        if source is None or branch not in self._places.branches or not any(strengths):
            return proceed(call)
        place = (call.site.layer, call.site.step, branch)
        self._came.add(place)
        self._replaced.add(place)
        edited = _with_map_of(call, source, strengths)
        if not any(0 < strength < 1 for of_heads in strengths for strength in of_heads):
            return proceed(edited)
        own, output = proceed(call), proceed(edited)
        return blend(own, output, strengths)


def _by_branch(call: AttentionCall) -> list[AttentionCall]:
    """A call as one for each branch; the rows of a branch follow one another."""
    counts = [len(tuple(rows)) for _, rows in groupby(call.site.rows, lambda row: row.branch)]
    if len(counts) == 1:
        return [call]
    ends = list(accumulate(counts))
    return [call.rows(slice(end - count, end)) for count, end in zip(counts, ends, strict=True)]


def _with_map_of(call: AttentionCall, source: int, strengths: list[tuple[float, ...]]) -> AttentionCall:
    """A call in which heads with a strength have the source's queries and keys; rows of which all have, share a map.

    strengths: of each row, of every head; () for a row that stays as it is.
    """
    whole, parts = [], dict[tuple[int, ...], list[int]]()
    for row, of_heads in enumerate(strengths):
        heads = replaced_heads(of_heads)
        if heads is not None:
            parts.setdefault(tuple(heads), []).append(row)
        elif of_heads:
            whole.append(row)
    q, k, together = call.q, call.k, {source, *whole}
    if len(together) == len(call.q):
        q, k = (x[source : source + 1].expand_as(x) for x in (q, k))
    elif whole:
        q, k = (put_rows(x, whole, None, x[source]) for x in (q, k))
    for chosen, rows in parts.items():
        q, k = (put_rows(x, rows, list(chosen), x[source, list(chosen)]) for x in (q, k))
    if not whole:
        return replace(call, q=q, k=k)
    first = tuple(min(together) if row in together else row for row in range(len(q)))
    return replace(call, q=q, k=k, shared=SharedMaps(q, k, first))

"""Sinks of a run: measured while the model samples, or from a recording of queries and keys."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..call import AttentionCall, Run
from ..maps.sampling import sample
from ..observer import RunObserver
from ..recording.store import AttentionStore, Evaluation, Key, StoreError
from ..recording.store.query import choose, choose_heads, recorded_run
from ..selection import ResolvedSelection, Selection
from .code import encode
from .measure import measure
from .record import MapSinks, SinkRecord

#: Queries that stand for all of a large map, and how many keys of each map have exact figures.
QUERIES, STRONGEST = 1024, 64
_MEDIAN_OF = 4096  # tokens, at most, from which the median norm is taken


class SinkObserver(RunObserver[SinkRecord]):
    """Measures the keys of chosen calls while the model samples; changes nothing.

    Args:
        selection: which calls. queries: how many random queries stand for all; maps of fewer tokens are computed whole.
        sample: which video of a batch. seed: of the queries.

    Raises (in `begin`):
        SelectionError: if the selection does not fit the run. ValueError: if there is no such video in the batch.
    """

    needs_output = True
    doing, did, thing = "measure", "measured", "record of sinks"

    def __init__(
        self, selection: Selection | None = None, queries: int = QUERIES, sample: int = 0, seed: int = 0
    ) -> None:
        super().__init__(selection)
        self.queries, self.sample, self.seed = queries, sample, seed

    @property
    def record(self) -> SinkRecord:
        """What the last run showed. Raises RuntimeError if that run has not ended, or did not end well."""
        return self.result

    def _start(self, run: Run, chosen: ResolvedSelection) -> SinkRecord:
        if self.sample >= run.samples:
            raise ValueError(f"There is no video {self.sample} in this batch of {run.samples}, 0 to {run.samples - 1}.")
        return SinkRecord(run, chosen.heads, self.queries if self.queries < run.grid.tokens else None)

    def _observe(
        self, record: SinkRecord, call: AttentionCall, branch: str, rows: list[int], output: Tensor | None
    ) -> bool:
        assert output is not None
        site = call.site
        picked = slice(None) if len(record.heads) == call.q.shape[1] else list(record.heads)
        chosen = None if record.queries is None else sample(record.run.grid, record.queries, self.seed)
        bias = None if call.bias is None else call.bias[picked]
        mine = [row for row in rows if site.rows[row].sample == self.sample]
        for row in mine:
            q, k, v, out = (x[row][picked] for x in (call.q, call.k, call.v, call.of_grid(output)))
            record.calls[Key(Evaluation(site.sigma, site.visit), branch, site.layer)] = map_sinks(
                q, k, v, out, chosen, bias
            )
        return bool(mine)

    def _finish(self, record: SinkRecord) -> SinkRecord:
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # copies to the CPU went on beside the sampling
        return record

    def _size(self) -> str:
        return f"{len(self.record.calls)} calls, {self.record.nbytes / 2**20:.1f} MiB"


def from_store(
    store: AttentionStore,
    selection: Selection | None = None,
    queries: int = QUERIES,
    sample_of: int = 0,
    seed: int = 0,
    device: str | torch.device = "cpu",
    on_call: Callable[[], None] | None = None,
) -> SinkRecord:
    """Sinks of recorded calls, computed on `device`; a recording has no values, so nothing is known of these.

    on_call: called after each call, to show progress or to raise an interrupt.

    Raises:
        SelectionError, StoreError: if the selection does not fit, nothing of it was recorded, or there is no such
            video.
    """
    selection, header = selection or Selection(), store.header
    heads = choose_heads(store, selection)
    if sample_of >= header.samples:
        raise StoreError(f"Video {sample_of} was not recorded; the store holds {store.summary()}.")
    run = recorded_run(header, store.branches)
    record = SinkRecord(run, heads, queries if queries < header.grid.tokens else None)
    chosen = None if record.queries is None else sample(header.grid, queries, seed)
    picked = [header.heads.index(head) for head in heads]
    for key in choose(store, selection):
        q, k = (x[sample_of, picked] for x in store.get(key, torch.device(device), run.dtype))
        record.calls[key] = map_sinks(q, k, queries=chosen)
        if on_call:
            on_call()
    return record


def map_sinks(
    q: Tensor,
    k: Tensor,
    v: Tensor | None = None,
    out: Tensor | None = None,
    queries: Tensor | None = None,
    bias: Tensor | None = None,
) -> MapSinks:
    """Measure the maps of one call.

    Args:
        q, k, v, out: (heads, tokens, head_dim); out: what the attention gave. queries, bias: see `measure`.
    """
    mass, participation = measure(q, k, queries, bias)
    tokens = mass.shape[1]
    top = mass.topk(min(STRONGEST, tokens), dim=1)
    norms = [_relative_norm(x, top.indices) for x in (k, k if v is None else v)]
    figures = [
        encode(mass * tokens),
        top.indices.int(),
        top.values,
        participation.gather(1, top.indices),
        norms[0],
        norms[1] if v is not None else torch.full_like(norms[1], float("nan")),
        torch.full_like(mass[:, 0], float("nan")) if out is None else _common(out),
    ]
    return MapSinks(*map(_on_cpu, figures))


def _relative_norm(x: Tensor, tokens: Tensor) -> Tensor:
    """The norms of some tokens over the median norm, float32; tokens: (heads, n)."""
    step = max(1, x.shape[1] // _MEDIAN_OF)
    median = x[:, ::step].float().norm(dim=-1).median(dim=1).values
    chosen = x.gather(1, tokens[..., None].expand(-1, -1, x.shape[-1])).float().norm(dim=-1)
    return chosen / median[:, None].clamp(min=1e-30)


def _common(out: Tensor) -> Tensor:
    """|mean of rows|^2 over the mean of |row|^2, float32 (heads,)."""
    return out.mean(1, dtype=torch.float32).square().sum(-1) / out.float().square().mean(1).sum(-1).clamp(min=1e-30)


def _on_cpu(x: Tensor) -> Tensor:
    """From a GPU without waiting: the copy goes on while the model samples; `end` waits for all."""
    if not x.is_cuda:
        return x
    return torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x, non_blocking=True)

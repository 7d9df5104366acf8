"""Sinks of a run: measured while the model samples, or from a recording of queries and keys."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..call import AttentionCall, Interceptor, Proceed, Run, Site
from ..coverage import Place, gaps
from ..maps.observer import choose, recorded_run
from ..maps.sums import sample
from ..outcome import Verdict, done, failed, idle
from ..recording.recorder import Selection
from ..recording.store import AttentionStore, Evaluation, Key, StoreError
from ..selection import choose_branches
from .code import encode
from .measure import received
from .record import MapSinks, SinkRecord

#: Queries that stand for all of a large map, and how many keys of each map have exact figures.
QUERIES, STRONGEST = 1024, 64
_MEDIAN_OF = 4096  # tokens, at most, from which the median norm is taken


class SinkObserver(Interceptor):
    """Measures the keys of chosen calls while the model samples; changes nothing.

    Args:
        selection: which calls. queries: how many random queries stand for all; maps of fewer tokens are computed whole.
        sample: which video of a batch. seed: of the queries.

    Raises (in `begin`):
        SelectionError: if the selection does not fit the run. ValueError: if there is no such video in the batch.
    """

    def __init__(
        self, selection: Selection | None = None, queries: int = QUERIES, sample: int = 0, seed: int = 0
    ) -> None:
        self.selection = selection or Selection()
        self.queries, self.sample, self.seed = queries, sample, seed
        self._filling: SinkRecord | None = None
        self._record: SinkRecord | None = None
        self._came: set[Place] = set()

    def verdict(self) -> Verdict:
        """What came of the last run: good if something came of every step and layer that was chosen."""
        if self._record is None or not (self._layers and self._steps and self._record.heads):
            return idle("nothing to measure: no layer, head or step is chosen")
        if not self._came:
            return failed("nothing was measured: no call came")
        measured = f"measured {len(self._record.calls)} calls, {self._record.nbytes / 2**20:.1f} MiB"
        return done(measured).but(*gaps(self._came, self._layers, self._steps))

    @property
    def record(self) -> SinkRecord:
        """What the last run showed.

        Raises:
            RuntimeError: if that run has not ended, or did not end well.
        """
        if self._record is None:
            raise RuntimeError("There are no sinks: the observed sampling run has not ended well.")
        return self._record

    def begin(self, run: Run) -> None:
        self._record = None
        self._came.clear()
        self._layers = set(self.selection.layers.resolve(run.model.layers, "layer"))
        self._steps = set(self.selection.steps.resolve(run.steps, "step"))
        self._branches = choose_branches(self.selection.branches, run.branches)
        heads = self.selection.heads.resolve(run.model.heads, "head")
        if self.sample >= run.samples:
            raise ValueError(f"There is no video {self.sample} in this batch of {run.samples}, 0 to {run.samples - 1}.")
        self._filling = SinkRecord(run, heads, self.queries if self.queries < run.grid.tokens else None)

    def wants(self, site: Site) -> bool:
        return self._filling is not None and site.layer in self._layers and site.step in self._steps

    def __call__(self, call: AttentionCall, proceed: Proceed) -> Tensor:
        assert self._filling is not None
        output = proceed(call)
        site, record = call.site, self._filling
        for i, row in enumerate(site.rows):
            if row.branch in self._branches and row.sample == self.sample and record.heads:
                key = Key(Evaluation(site.sigma, site.visit), row.branch, site.layer)
                picked = slice(None) if len(record.heads) == call.q.shape[1] else list(record.heads)
                q, k, v, out = (x[i][picked] for x in (call.q, call.k, call.v, output))
                chosen = None if record.queries is None else sample(record.run.grid, record.queries, self.seed)
                bias = None if call.bias is None else call.bias[picked]
                record.calls[key] = map_sinks(q, k, v, out, chosen, bias)
                self._came.add((site.layer, site.step, row.branch))
        return output

    def end(self, completed: bool) -> None:
        filled, self._filling = self._filling, None
        if completed:
            if torch.cuda.is_available():
                torch.cuda.synchronize()  # copies to the CPU went on beside the sampling
            self._record = filled


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
    heads = tuple(h for h in selection.heads.resolve(header.model.heads, "head") if h in header.heads)
    if not heads or sample_of >= header.samples:
        raise StoreError(
            f"Heads {selection.heads} of video {sample_of} were not recorded; the store holds {store.summary()}."
        )
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
        q, k, v, out: (heads, tokens, head_dim); out: what the attention gave. queries, bias: see `received`.
    """
    mass, evenness = received(q, k, queries, bias)
    tokens = mass.shape[1]
    top = mass.topk(min(STRONGEST, tokens), dim=1)
    norms = [_relative_norm(x, top.indices) for x in (k, k if v is None else v)]
    figures = [
        encode(mass * tokens),
        top.indices.int(),
        top.values,
        evenness.gather(1, top.indices),
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

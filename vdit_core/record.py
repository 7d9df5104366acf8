"""Recording: an observer that keeps the queries and keys of chosen calls of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .call import AttentionCall, Interceptor, Proceed, Run, Site
from .precision import PRECISIONS
from .selection import Indices, choose_branches
from .store import AttentionStore, Evaluation, Header, Key


@dataclass(frozen=True)
class Selection:
    """Which calls to record: layers, heads and steps in `selection`'s grammar, and branches ("all" or one's name)."""

    layers: Indices = field(default_factory=Indices)
    heads: Indices = field(default_factory=Indices)
    steps: Indices = field(default_factory=Indices)
    branches: str = "all"


class Recorder(Interceptor):
    """Fills an `AttentionStore` with one run; a further run starts a new store.

    Args:
        selection: which calls.
        precision: "exact" (the model's dtype) or "int8" (about half of float16).
        device: where the store lives: "cpu", or None to leave the tensors on the model's device.

    Raises:
        ValueError: for an unknown precision. SelectionError: in `begin`, if the selection does not fit the run.
    """

    def __init__(
        self, selection: Selection | None = None, precision: str = "exact", device: str | None = "cpu"
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"Precision {precision!r} is not one of {', '.join(PRECISIONS)}.")
        self.selection = selection or Selection()
        self.precision = precision
        self.device = device
        self._run: Run | None = None
        self._filling: AttentionStore | None = None
        self._store: AttentionStore | None = None

    @property
    def store(self) -> AttentionStore:
        """The store of the last run.

        Raises:
            RuntimeError: if that run has not ended, or did not end well.
        """
        if self._store is None:
            raise RuntimeError("There is no recording: the sampling run that the recorder watches has not ended well.")
        return self._store

    def begin(self, run: Run) -> None:
        self._store = self._filling = None
        self._layers = set(self.selection.layers.resolve(run.model.layers, "layer"))
        self._heads = self.selection.heads.resolve(run.model.heads, "head")
        self._steps = set(self.selection.steps.resolve(run.steps, "step"))
        self._branches = set(choose_branches(self.selection.branches, run.branches))
        self._run = run

    def wants(self, site: Site) -> bool:
        return (
            site.layer in self._layers
            and site.step in self._steps
            and bool(self._heads)
            and any(row.branch in self._branches for row in site.rows)
        )

    def __call__(self, call: AttentionCall, proceed: Proceed) -> Tensor:
        site = call.site
        if self._filling is None:
            self._filling = AttentionStore(self._header(site.run, call.q.dtype))
        for branch in self._branches:
            rows = [i for i, row in enumerate(site.rows) if row.branch == branch]
            if rows:
                key = Key(Evaluation(site.sigma, site.visit), branch, site.layer)
                q, k = (_pick(x, rows, self._heads) for x in (call.q, call.k))
                self._filling.put(key, q, k, self.device)
        return proceed(call)

    def end(self, completed: bool) -> None:
        filled, self._filling, run, self._run = self._filling, None, self._run, None
        if completed and run is not None:
            # A run in which nothing was selected leaves an empty store, not none.
            self._store = filled or AttentionStore(self._header(run, torch.float32))

    def _header(self, run: Run, dtype: torch.dtype) -> Header:
        name = str(dtype).removeprefix("torch.")
        return Header(run.model, run.grid, run.sigmas, self._heads, run.samples, self.precision, name)


def _pick(x: Tensor, rows: list[int], heads: tuple[int, ...]) -> Tensor:
    """Some rows and heads of (rows, heads, tokens, head_dim); no copy where all are wanted."""
    if len(rows) < x.shape[0]:
        x = x[rows]
    return x if len(heads) == x.shape[1] else x[:, list(heads)]

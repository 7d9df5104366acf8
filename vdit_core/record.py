"""Recording: an observer that keeps the queries and keys of chosen calls of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from .call import AttentionCall, Interceptor, Proceed, Run, Site
from .precision import PRECISIONS
from .selection import Indices, choose_branches
from .store import AttentionStore, Evaluation, Header, Key


class RecordingTooLarge(ValueError):
    """A recording would not fit the memory it may take."""


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
        budget: how many bytes the recording may take, asked when a run begins; None for no limit.

    Raises:
        ValueError: for an unknown precision. In `begin`: SelectionError, if the selection does not fit the run, and
            RecordingTooLarge, if the recording does not fit the budget.
    """

    def __init__(
        self,
        selection: Selection | None = None,
        precision: str = "exact",
        device: str | None = "cpu",
        budget: Callable[[], float] | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"Precision {precision!r} is not one of {', '.join(PRECISIONS)}.")
        self.selection = selection or Selection()
        self.precision = precision
        self.device = device
        self.budget = budget
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

    def take(self) -> AttentionStore:
        """The store of the last run, which the recorder then lets go."""
        store, self._store = self.store, None
        return store

    def begin(self, run: Run) -> None:
        self._store = self._filling = None
        self._layers = set(self.selection.layers.resolve(run.model.layers, "layer"))
        self._heads = self.selection.heads.resolve(run.model.heads, "head")
        self._steps = set(self.selection.steps.resolve(run.steps, "step"))
        self._branches = set(choose_branches(self.selection.branches, run.branches))
        dtype = str(run.dtype).removeprefix("torch.")
        header = Header(run.model, run.grid, run.sigmas, self._heads, run.samples, self.precision, dtype)
        self._check_size(header)
        self._filling = AttentionStore(header)

    def _check_size(self, header: Header) -> None:
        calls = len(self._layers) * len(self._steps) * len(self._branches)
        needed, budget = calls * header.entry_bytes(), self.budget() if self.budget else float("inf")
        if needed <= budget:
            return
        shape = f"{len(self._layers)} layers x {len(self._steps)} steps x {len(self._branches)} branches"
        one = f"{header.entry_bytes() / 2**20:.1f} MiB ({header.samples} x {header.grid}, {header.precision})"
        raise RecordingTooLarge(
            f"This recording would weigh {needed / 2**30:.1f} GiB, and it may take {budget / 2**30:.1f} GiB: {shape} = "
            f"{calls} calls of {one}; {int(budget // header.entry_bytes())} fit. Record fewer layers (for example "
            f"0-{header.model.layers - 1}/5) or steps (0%-50%), use int8, allow it more memory, or use live transfer, "
            "which stores nothing."
        )

    def wants(self, site: Site) -> bool:
        return (
            site.layer in self._layers
            and site.step in self._steps
            and bool(self._heads)
            and any(row.branch in self._branches for row in site.rows)
        )

    def __call__(self, call: AttentionCall, proceed: Proceed) -> Tensor:
        assert self._filling is not None
        site = call.site
        for branch in self._branches:
            rows = [i for i, row in enumerate(site.rows) if row.branch == branch]
            if rows:
                key = Key(Evaluation(site.sigma, site.visit), branch, site.layer)
                q, k = (_pick(x, rows, self._heads) for x in (call.q, call.k))
                self._filling.put(key, q, k, self.device)
        return proceed(call)

    def end(self, completed: bool) -> None:
        filled, self._filling = self._filling, None
        if completed:
            self._store = filled


def _pick(x: Tensor, rows: list[int], heads: tuple[int, ...]) -> Tensor:
    """Some rows and heads of (rows, heads, tokens, head_dim); no copy where all are wanted."""
    if len(rows) < x.shape[0]:
        x = x[rows]
    return x if len(heads) == x.shape[1] else x[:, list(heads)]

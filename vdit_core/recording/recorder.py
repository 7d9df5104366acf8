"""Recording: an observer that keeps the queries and keys of chosen calls of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ..call import AttentionCall, Interceptor, Proceed, Run, Site
from ..coverage import Place, gaps
from ..outcome import Verdict, done, failed, idle
from ..selection import Indices, choose_branches
from .budget import Demand, RecordingTooLarge, Room, describe, readable
from .quantization import PRECISIONS
from .store import AttentionStore, Evaluation, Header, Key
from .store.schema import DTYPES
from .store.storage import TIERS, new_shelf, weight


@dataclass(frozen=True)
class Selection:
    """Which calls to record: layers, heads and steps in `selection`'s grammar, and branches ("all" or one's name)."""

    layers: Indices = field(default_factory=Indices)
    heads: Indices = field(default_factory=Indices)
    steps: Indices = field(default_factory=Indices)
    branches: str = "all"

    def resolve(self, run: Run) -> Chosen:
        """The calls of a run that are meant.

        Raises:
            SelectionError: if a layer, head or step is out of range, or a branch is not in the run.
        """
        return Chosen(
            layers=frozenset(self.layers.resolve(run.model.layers, "layer")),
            heads=self.heads.resolve(run.model.heads, "head"),
            steps=frozenset(self.steps.resolve(run.steps, "step")),
            branches=choose_branches(self.branches, run.branches),
        )


@dataclass(frozen=True)
class Chosen:
    """A `Selection`, resolved for one run."""

    layers: frozenset[int]
    heads: tuple[int, ...]
    steps: frozenset[int]
    branches: tuple[str, ...]

    def take(self, site: Site) -> bool:
        return site.layer in self.layers and site.step in self.steps and bool(self.heads) and bool(self.rows(site))

    def rows(self, site: Site) -> dict[str, list[int]]:
        """The rows of a call's batch, by chosen branch."""
        found = {branch: [i for i, row in enumerate(site.rows) if row.branch == branch] for branch in self.branches}
        return {branch: rows for branch, rows in found.items() if rows}


class Recorder(Interceptor):
    """Fills an `AttentionStore` with one run; a further run starts a new store.

    Args:
        selection: which calls.
        precision: "exact" (the model's dtype) or "int8" (about half of float16).
        tier: where the store lives: "RAM", "pinned RAM", "GPU" (the model's device, whatever it is) or "disk".
        room: how many bytes the recording may take.
        folder: where recordings on disk are kept, each in a folder of its own that goes with its store; None for the
            system's folder of temporary files.

    Raises:
        ValueError: for an unknown precision or tier. In `begin`: for a dtype that a store cannot hold; SelectionError,
            if the selection does not fit the run; and RecordingTooLarge, if the recording will not fit the room. That
            also later, before the first call that does not fit, if the sampler turns out to evaluate the model more
            often than was known.
        OSError: from a call or from `end`, if the disk does not take what was recorded.
    """

    def __init__(
        self,
        selection: Selection | None = None,
        precision: str = "exact",
        tier: str = "RAM",
        room: Room | None = None,
        folder: Path | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"Precision {precision!r} is not one of {', '.join(PRECISIONS)}.")
        if tier not in TIERS:
            raise ValueError(f"Tier {tier!r} is not one of {', '.join(TIERS)}.")
        self.selection = selection or Selection()
        self.precision = precision
        self.tier = tier
        self.room = room or Room()
        self.folder = folder
        self._filling: AttentionStore | None = None
        self._store: AttentionStore | None = None
        self._chosen: Chosen | None = None
        self._came: set[Place] = set()
        self._size = ""

    @property
    def records_nothing(self) -> bool:
        """Whether no layer, head or step is chosen, whatever the model."""
        chosen = (self.selection.layers, self.selection.heads, self.selection.steps)
        return any(indices.text.strip().lower() == "none" for indices in chosen)

    def verdict(self) -> Verdict:
        """What came of the last run: good if something came of every step and layer that was chosen."""
        chosen = self._chosen
        if chosen is None or not (chosen.layers and chosen.heads and chosen.steps):
            return idle("nothing to record: no layer, head or step is chosen")
        if not self._came:
            return failed("nothing was recorded: no call came")
        return done(f"recorded {self._size}").but(*gaps(self._came, chosen.layers, chosen.steps))

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
        self._store = None
        self._came.clear()
        if self._filling is not None:  # the same recorder twice in one chain
            self._filling.drop()
            self._filling = None
        self._chosen = chosen = self.selection.resolve(run)
        dtype = str(run.dtype).removeprefix("torch.")
        if dtype not in DTYPES:
            raise ValueError(f"Queries and keys of dtype {dtype} cannot be recorded, only {', '.join(DTYPES)}.")
        header = Header(run.model, run.grid, run.sigmas, chosen.heads, run.samples, self.precision, dtype, run.kind,
                        run.made)  # fmt: skip
        passes = tuple(sum(run.comes(step, branch) for branch in chosen.branches) for step in sorted(chosen.steps))
        demand = Demand(header, self.tier, len(chosen.layers), len(chosen.branches), passes, run.evaluations)
        self._limit = demand.check(self.room)
        calls = [(branch, layer) for branch in chosen.branches for layer in chosen.layers]
        self._filling = AttentionStore(header, new_shelf(self.tier, header, calls, self.folder))

    def _check_room(self, store: AttentionStore, key: Key) -> None:
        """Before an entry is kept: a sampler may evaluate the model more often than was known."""
        if key in store or (len(store) + 1) * weight(self.tier, store.header) <= self._limit:
            return
        raise RecordingTooLarge(
            f"This recording has reached the {readable(self._limit)} that it may take, {len(store)} calls, at "
            f"noise level {key.evaluation.sigma:.4f}: this sampler, or another node, evaluates the model more often "
            f"than once a step. A call weighs {describe(store.header, self.tier)}; {len(store)} fit. Record fewer "
            "layers or steps, use int8 or the disk, grant it more, or use live transfer, which stores nothing."
        )

    def wants(self, site: Site) -> bool:
        return self._chosen is not None and self._chosen.take(site)

    def __call__(self, call: AttentionCall, proceed: Proceed) -> Tensor:
        assert self._filling is not None
        assert self._chosen is not None
        site = call.site
        for branch, rows in self._chosen.rows(site).items():
            key = Key(Evaluation(site.sigma, site.visit), branch, site.layer)
            self._check_room(self._filling, key)
            q, k = (_pick(x, rows, self._chosen.heads) for x in (call.q, call.k))
            self._filling.put(key, q, k)
            self._came.add((site.layer, site.step, branch))
        return proceed(call)

    def end(self, completed: bool) -> None:
        filled, self._filling = self._filling, None
        if filled is None:
            return
        try:
            if completed:
                filled.finish()
                self._store, self._size = filled, filled.size()
        finally:
            if self._store is not filled:
                filled.drop()


def _pick(x: Tensor, rows: list[int], heads: tuple[int, ...]) -> Tensor:
    """Some rows and heads of (rows, heads, tokens, head_dim); no copy where all are wanted."""
    if len(rows) < x.shape[0]:
        x = x[rows]
    return x if len(heads) == x.shape[1] else x[:, list(heads)]

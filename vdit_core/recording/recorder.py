"""Recording: an observer that keeps the queries and keys of chosen calls of a run."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ..attention.text_share import text_share
from ..call import AttentionCall, Run
from ..observer import RunObserver
from ..selection import ResolvedSelection, Selection
from .budget import Demand, MemoryBudget, RecordingTooLarge, describe, readable
from .quantization import QUANTIZATIONS
from .store import AttentionStore, Header, Key
from .store.schema import DTYPES
from .store.storage import TIERS, new_storage, weight


class Recorder(RunObserver[AttentionStore]):
    """Fills an `AttentionStore` with one run; a further run starts a new store.

    Args:
        selection: which calls.
        quantization: "none" (the model's dtype) or "int8" (about half of float16).
        tier: where the store lives: "RAM", "pinned RAM", "GPU" (the model's device, whatever it is) or "disk".
        budget: how many bytes the recording may take.
        folder: where recordings on disk are kept, each in a folder of its own that goes with its store; None for the
            system's folder of temporary files.

    Raises:
        ValueError: for an unknown quantization or tier; in `begin` for a dtype that a store cannot hold.
        SelectionError: in `begin`, if the selection does not fit the run.
        RecordingTooLarge: in `begin`, if the recording will not fit its budget; later, before the first call that does
            not fit, if the sampler evaluates the model more often than was known.
        OSError: from a call or from `end`, if the disk does not take what was recorded.
    """

    doing, did, thing = "record", "recorded", "recording"

    def __init__(
        self,
        selection: Selection | None = None,
        quantization: str = "none",
        tier: str = "RAM",
        budget: MemoryBudget | None = None,
        folder: Path | None = None,
    ) -> None:
        if quantization not in QUANTIZATIONS:
            raise ValueError(f"Quantization {quantization!r} is not one of {', '.join(QUANTIZATIONS)}.")
        if tier not in TIERS:
            raise ValueError(f"Tier {tier!r} is not one of {', '.join(TIERS)}.")
        super().__init__(selection)
        self.quantization = quantization
        self.tier = tier
        self.budget = budget or MemoryBudget()
        self.folder = folder
        self._last_size = ""

    @property
    def records_nothing(self) -> bool:
        """Whether no layer, head or step is chosen, whatever the model."""
        chosen = (self.selection.layers, self.selection.heads, self.selection.steps)
        return any(indices.text.strip().lower() == "none" for indices in chosen)

    @property
    def store(self) -> AttentionStore:
        """The store of the last run. Raises RuntimeError if that run has not ended, or did not end well."""
        return self.result

    def take(self) -> AttentionStore:
        """The store of the last run, which the recorder then lets go."""
        store, self._result = self.store, None
        return store

    def _start(self, run: Run, chosen: ResolvedSelection) -> AttentionStore:
        dtype = str(run.dtype).removeprefix("torch.")
        if dtype not in DTYPES:
            raise ValueError(f"Queries and keys of dtype {dtype} cannot be recorded, only {', '.join(DTYPES)}.")
        header = Header(run.model, run.grid, run.sigmas, chosen.heads, run.samples, self.quantization, dtype, run.kind,
                        run.made, run.joint)  # fmt: skip
        passes = tuple(sum(run.comes(step, branch) for branch in chosen.branches) for step in sorted(chosen.steps))
        demand = Demand(header, self.tier, len(chosen.layers), len(chosen.branches), passes, run.evaluations)
        self._limit = demand.check(self.budget)
        calls = [(branch, layer) for branch in chosen.branches for layer in chosen.layers]
        return AttentionStore(header, new_storage(self.tier, header, calls, self.folder, demand.calls))

    def _check_budget(self, store: AttentionStore, key: Key) -> None:
        """Before an entry is kept: a sampler may evaluate the model more often than was known."""
        if key in store or (len(store) + 1) * weight(self.tier, store.header) <= self._limit:
            return
        raise RecordingTooLarge(
            f"This recording has reached the {readable(self._limit)} that it may take, {len(store)} calls, at "
            f"noise level {key.evaluation.sigma:.4f}: this sampler, or another node, evaluates the model more often "
            f"than once a step. A call weighs {describe(store.header, self.tier)}; {len(store)} fit. Record fewer "
            "layers or steps, use int8 or the disk, grant it more, or use live transfer, which stores nothing."
        )

    def _observe(
        self, store: AttentionStore, call: AttentionCall, branch: str, rows: list[int], _: Tensor | None
    ) -> bool:
        key = Key.of(call.site, branch)
        self._check_budget(store, key)
        heads = store.header.heads
        text = None
        if store.header.joint:
            text = call.q.new_zeros(len(rows), len(heads))
            if call.joint is not None:
                text = text_share(call.q, call.k, call.joint, rows, list(heads))
        store.put(key, _pick(call.q, rows, heads), _pick(call.k, rows, heads), text)
        return True

    def _finish(self, store: AttentionStore) -> AttentionStore:
        store.finish()
        self._last_size = store.size()
        return store

    def _discard(self, store: AttentionStore) -> None:
        store.drop()

    def _size(self) -> str:
        return self._last_size


def _pick(x: Tensor, rows: list[int], heads: tuple[int, ...]) -> Tensor:
    """Some rows and heads of (rows, heads, tokens, head_dim); no copy where all are wanted."""
    if len(rows) < x.shape[0]:
        x = x[rows]
    return x if len(heads) == x.shape[1] else x[:, list(heads)]

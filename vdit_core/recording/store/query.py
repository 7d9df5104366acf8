"""What a recording holds, found by a selection."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...attention.text_share import text_share
from ...call import AttentionCall, Run
from ...selection import Selection, choose_branches
from .attention_store import AttentionStore
from .schema import Header, Key, StoreError


def recorded_run(header: Header, branches: tuple[str, ...]) -> Run:
    """The run that a store was recorded of, as far as its header tells."""
    dtype = stored_dtype(header)
    return Run(header.model, header.grid, header.sigmas, branches, header.samples, dtype, header.kind, made=header.made,
               joint=header.joint)  # fmt: skip


def stored_dtype(header: Header) -> torch.dtype:
    """What queries and keys were computed in."""
    return getattr(torch, header.dtype)


def choose(store: AttentionStore, selection: Selection) -> list[Key]:
    """The recorded calls that a selection means, in the order of the run.

    Raises:
        SelectionError: if it does not fit the recorded model.
        StoreError: naming what was recorded, if nothing of it was.
    """
    run = recorded_run(store.header, store.branches)
    layers = selection.layers.resolve(run.model.layers, "layer", run.model.kinds)
    steps = selection.steps.resolve(run.steps, "step")
    if selection.branches not in ("all", *run.branches):
        there = ", ".join(sorted(run.branches))
        raise StoreError(f"Branch {selection.branches!r} was not recorded; the store holds {there}.")
    found = [
        key
        for evaluation in store.evaluations
        if run.step_of(evaluation.sigma) in steps
        for branch in choose_branches(selection.branches, run.branches)
        for layer in layers
        if (key := Key(evaluation, branch, layer)) in store
    ]
    if not found:
        raise StoreError(
            f"Nothing of layers {selection.layers}, steps {selection.steps}, branch {selection.branches} was recorded. "
            f"The store holds {store.summary()}."
        )
    return found


def choose_heads(store: AttentionStore, selection: Selection) -> tuple[int, ...]:
    """The recorded heads that a selection means.

    Raises:
        SelectionError: if it does not fit the recorded model. StoreError: if none of them was recorded.
    """
    header = store.header
    heads = tuple(h for h in selection.heads.resolve(header.model.heads, "head") if h in header.heads)
    if not heads:
        raise StoreError(f"Heads {selection.heads} were not recorded; the store holds heads {list(header.heads)}.")
    return heads


def queries_and_keys(
    store: AttentionStore, key: Key, heads: Sequence[int], device: str | torch.device
) -> tuple[Tensor, Tensor]:
    """Some heads of a recorded call, (samples, heads, tokens, head_dim) in the run's dtype; not a copy, if neighbouring
    heads lie on the device as they are."""
    q, k, _ = with_text_share(store, key, heads, device)
    return q, k


def with_text_share(
    store: AttentionStore, key: Key, heads: Sequence[int], device: str | torch.device
) -> tuple[Tensor, Tensor, Tensor | None]:
    """As `queries_and_keys`, and the share of these heads' attention that went to text, (samples, heads), or None."""
    places = [store.header.heads.index(head) for head in heads]
    q, k, text = store.get_all(key, torch.device(device), stored_dtype(store.header))
    return pick(q, 1, places), pick(k, 1, places), None if text is None else pick(text, 1, places)


def of_call(call: AttentionCall, rows: list[int], heads: Sequence[int]) -> tuple[Tensor, Tensor, Tensor | None]:
    """As `with_text_share`, of a call that comes by; rows: of its batch."""
    q, k = (pick(pick(x, 0, rows), 1, heads) for x in (call.q, call.k))
    return q, k, None if call.joint is None else text_share(call.q, call.k, call.joint, rows, list(heads))


def pick(x: Tensor, dim: int, places: Sequence[int]) -> Tensor:
    """Some places of a dimension; a view where they follow one another."""
    first = places[0]
    if list(places) == list(range(first, first + len(places))):
        return x.narrow(dim, first, len(places))
    return x.index_select(dim, torch.tensor(places, device=x.device))

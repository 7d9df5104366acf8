"""The roles of heads, of one or several recordings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..recording.store import AttentionStore, Header
from ..recording.store.query import choose
from ..selection import Selection
from .classify import Roles, head_roles
from .observer import from_store

#: Above so many tokens queries are sampled, unless all are asked for: all rows of such a map take a CPU minutes.
EXACT_UP_TO, SAMPLED = 8192, 1024


def look(
    stores: Sequence[AttentionStore],
    selection: Selection | None = None,
    queries: int | None = None,
    device: str | torch.device = "cpu",
    on_call: Callable[[], None] | None = None,
    on_chunk: Callable[[], None] | None = None,
) -> Roles:
    """The role of each recorded head; every mistake in the selection is raised before anything is computed.

    queries, on_call, on_chunk: see `from_store`.

    Raises:
        SelectionError, StoreError, ValueError: naming what was chosen and what is there. RolesError: if the recordings
            are of different models, sizes, layers or heads.
    """
    for store in stores:
        choose(store, selection or Selection())
    return head_roles(*(from_store(store, selection, queries, 0, device, on_call, on_chunk) for store in stores))


def auto_queries(header: Header) -> int | None:
    """How many queries are sampled, if nobody says: None, all, of small maps."""
    return None if header.grid.tokens <= EXACT_UP_TO else SAMPLED

"""Who else leaves parts of the attention maps out: ComfyUI's own node Model Sparse Attention (0.38 and newer)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

NAME = "Model Sparse Attention"
_MODULE = "nodes_sparse_attention"


class SparseOverrides:
    """That node's overrides among the attention overrides of one model call, each of which may call an earlier one."""

    def __init__(self, outermost: Any) -> None:
        self._patches = [_held(each).get("patch") for each in _chain(outermost) if _module(each) == _MODULE]

    def name_if_sparse(self, options: dict[str, Any], tokens: int, layer: int) -> str | None:
        """NAME, if one of them will be sparse in this layer or does not say; None if none will."""
        reasons = (getattr(patch, "dense_reason", None) for patch in self._patches)
        return NAME if any(reason is None or reason(options, tokens, layer) is None for reason in reasons) else None


def _chain(override: Any) -> Iterator[Any]:
    while override is not None:
        yield override
        override = _held(override).get("previous")


def _held(override: Any) -> Mapping[str, Any]:
    """What an override keeps: the variables around a function, the attributes of an object."""
    if inspect.isfunction(override):
        return inspect.getclosurevars(override).nonlocals
    return getattr(override, "__dict__", {})


def _module(override: Any) -> str:
    """The last part of where an override comes from; the module of a built-in node has its path for a name."""
    kind = override if inspect.isfunction(override) else type(override)
    return re.split(r"[./\\]", kind.__module__ or "")[-1]

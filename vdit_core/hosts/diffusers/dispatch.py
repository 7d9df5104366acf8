"""Self-attention of any processor, taken at the moment when it calls PyTorch's attention function.

A processor's own code makes queries, keys and values, and goes on with the output: nothing of it is written again here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ...call import AttentionCall
from ...joint_tokens import JointTokens, key_bias

if TYPE_CHECKING:
    from .session import Session


def intercept(layer: int, attention: Any, session: Session) -> Callable[[], None]:
    """Send a module's attention calls through a session's chain; returns what undoes it.

    Raises:
        RuntimeError: if it is intercepted already.
    """
    stock = attention.forward
    if isinstance(stock, partial) and stock.func is _forward:
        raise RuntimeError("This pipeline is attached already. Give one attach() all interceptors.")
    attention.forward = partial(_forward, stock, layer, session)
    return partial(delattr, attention, "forward")


def _forward(stock: Any, layer: int, session: Session, *args: Any, **kwargs: Any) -> Any:
    site = session.site(layer)
    if not session.chain.wants(site):
        return stock(*args, **kwargs)
    with _Attention(layer, session) as taken:
        output = stock(*args, **kwargs)
    if not taken.calls:
        raise RuntimeError(
            f"The self-attention of layer {layer} did not call PyTorch's attention function: another attention backend "
            'is chosen. Write pipe.transformer.set_attention_backend("native").'
        )
    return output


class _Attention(TorchFunctionMode):
    """Catches calls of F.scaled_dot_product_attention; what the chain computes in its place is not caught again."""

    def __init__(self, layer: int, session: Session) -> None:
        super().__init__()
        self.layer, self.session, self.calls = layer, session, 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
        given = dict(zip(names, args, strict=False)) | (kwargs or {})
        q, k, v = (given.pop(name) for name in names[:3])
        output = self._chain(q, k, v, given.pop("attn_mask", None), given)
        self.calls += 1
        return output

    def _chain(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, how: dict[str, Any]) -> Tensor:
        site, family = self.session.site(self.layer), self.session.family
        if len(q) < len(site.rows):  # a processor that computes one video after the other
            site = replace(site, rows=site.rows[self.calls : self.calls + len(q)])
        grid, backend = site.run.grid, _Backend(mask, how)
        if not family.text:
            return self.session.chain(AttentionCall(site, q, k, v, backend))
        start = 0 if family.text == "behind" else q.shape[2] - grid.tokens
        joint = JointTokens(
            q, k, v, start, start, grid.tokens, None if mask is None else key_bias(mask, len(q), k.shape[2])
        )
        return self.session.chain(AttentionCall(site, *joint.of_grid(), backend, joint=joint))


@dataclass(frozen=True)
class _Backend:
    """PyTorch's attention as the processor called it. mask: its own, or None. how: its further arguments."""

    mask: Tensor | None
    how: dict[str, Any]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mask = self.mask
        if mask is not None and mask.shape[-2] not in (1, q.shape[2]):  # of all queries, and these are some
            mask = key_bias(mask, len(q), k.shape[2])[:, None, None].to(q.dtype)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **self.how)

    def rows(self, rows: slice) -> _Backend:
        """Of some rows of the batch."""
        alike = self.mask is None or len(self.mask) == 1
        return self if alike else replace(self, mask=None if self.mask is None else self.mask[rows])

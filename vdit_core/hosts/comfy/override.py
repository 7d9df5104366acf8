"""The attention function of one model call: self-attention goes through the chain, all else where it would go."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...call import AttentionCall, Site, TokenGrid
from .model_sparse_attention import SparseOverrides

if TYPE_CHECKING:
    from .session import ModelCall, Session

_FRAMES = 12  # between a block's attention and this function, at most


def override_for(session: Session, call: ModelCall, previous: Any) -> Override:
    """The override of a model call. Newer cores hand their tensors over in containers, which free them early; these are
    handed on where whoever stood here before can take them."""
    takes_containers = previous is None or hasattr(previous, "container_function")
    return (ContainerOverride if takes_containers else Override)(session, call, previous)


class Override:
    """seen: the layers whose self-attention came by. strange: what came instead, if anything did."""

    def __init__(self, session: Session, call: ModelCall, previous: Any) -> None:
        self.session, self.call = session, call
        self.previous, self.sparse = previous, SparseOverrides(previous)
        self.seen: set[int] = set()
        self.strange: str | None = None
        self._layer = -1

    @torch.compiler.disable()
    def __call__(self, func: Any, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        site = self._site(q, k, kwargs)
        stock = self._stock(func, kwargs, of_self=site is not None)
        if site is None or not self.session.chain.wants(site):
            return stock(q, k, v, *args, **kwargs)
        return self._chain(site, stock, (q, k, v), args, kwargs)

    def _stock(self, func: Any, kwargs: dict[str, Any], of_self: bool) -> Any:
        """What would compute this call without us: an earlier override, else the block's own preferred attention,
        which newer cores give up as soon as there is any override, else the backend."""
        if self.previous is not None:
            return partial(self.previous, func)
        blocks, layer = self.session.network.blocks, (kwargs.get("transformer_options") or {}).get("block_index")
        module = None if layer is None else getattr(blocks[layer], "self_attn" if of_self else "cross_attn", None)
        preferred = getattr(getattr(module, "comfy_attention", None), "function", None)
        return func if preferred is None else preferred

    def _site(self, q: Tensor, k: Tensor, kwargs: dict[str, Any]) -> Site | None:
        """Where this call is, if it is a block's self-attention."""
        grid = self._self_attention(q, k, kwargs)
        return None if grid is None else self.session.site(self._layer, grid, q.dtype, self.call)

    def _chain(
        self, site: Site, stock: Any, qkv: tuple[Tensor, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        heads = kwargs["heads"]

        def backend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return _split(stock(_join(q), _join(k), _join(v), *args, **kwargs), heads)

        tokens = site.run.grid.tokens
        elsewhere = self.sparse.name_if_sparse(kwargs["transformer_options"], tokens, self._layer)
        q, k, v = (_split(x, heads) for x in qkv)
        return _join(self.session.chain(AttentionCall(site, q, k, v, backend, sparse_elsewhere=elsewhere)))

    def _self_attention(self, q: Tensor, k: Tensor, kwargs: dict[str, Any]) -> TokenGrid | None:
        """The grid, if this call is a block's self-attention, and the first of this pass through the block."""
        options = kwargs.get("transformer_options") or {}
        layer, sizes = options.get("block_index"), options.get("grid_sizes")
        if q.dim() != 3 or q.shape != k.shape or self.session.stock is not None:
            return None
        if layer is None:
            self.strange = "another node's copy of the model calls attention without saying of which block it is"
            return None
        if layer == self._layer or not self._is_of_self(layer, q.shape[1]):
            return None
        self._layer = layer
        known, rows = self.call.inputs.grid, self.call.rows
        frames, height, width = sizes or (known.frames, known.height, known.width)  # not every network tells its sizes
        prefix = known.prefix
        suffix = q.shape[1] - frames * height * width - prefix
        if suffix < 0 or len(q) != len(rows):
            self.session.leave_to_stock(
                f"self-attention of layer {layer} has {len(q)} rows of {q.shape[1]} tokens; expected {len(rows)} "
                f"rows of {frames} x {height} x {width} tokens and {prefix} of a reference"
            )
            return None
        self.seen.add(layer)
        return TokenGrid(frames, height, width, prefix, suffix)

    def _is_of_self(self, layer: int, tokens: int) -> bool:
        """Whether a call whose queries and keys are of one shape is self-attention.

        A text may be as long as the grid; then the module that calls tells.
        """
        if tokens != self.call.text:
            return True
        block = self.session.network.blocks[layer]
        frame = sys._getframe(2)
        for _ in range(_FRAMES):
            caller = frame.f_locals.get("self")
            if caller is block.self_attn or caller is block.cross_attn:
                return caller is block.self_attn
            if frame.f_back is None:
                break
            frame = frame.f_back
        return not self.session.self_attention_is_replaced()  # a stock block's first call is its self-attention


class ContainerOverride(Override):
    """Takes the containers of newer cores too; only a class with this method is given them."""

    @torch.compiler.disable()
    def container_function(self, q: Any, k: Any, v: Any, *args: Any, **kwargs: Any) -> Tensor:
        site = self._site(q.peek(), k.peek(), kwargs)
        # What would have been called is not told: the function by whose name the model calls attention.
        func = sys.modules[type(self.session.network).__module__].optimized_attention
        if site is None or not self.session.chain.wants(site):
            if self.previous is not None:
                return self.previous.container_function(q, k, v, *args, **kwargs)
            return self._stock(func, kwargs, of_self=site is not None)(q, k, v, *args, **kwargs)
        stock = self._stock(func, kwargs, of_self=True)
        return self._chain(site, stock, (q.take(), k.take(), v.take()), args, kwargs)


def _split(x: Tensor, heads: int) -> Tensor:
    """(rows, tokens, heads * head_dim) to (rows, heads, tokens, head_dim); a view."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _join(x: Tensor) -> Tensor:
    """The way back; a view of what `_split` made."""
    return x.transpose(1, 2).flatten(2)

"""The attention function of one model call: self-attention goes through the chain, all else where it would go."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from comfy.ldm.modules import attention
from torch import Tensor

from ...call import AttentionCall, Site, TokenGrid
from ...joint_tokens import JointTokens, key_bias
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
        self.session, self.call, self.family = session, call, session.family
        self.previous, self.sparse = previous, SparseOverrides(previous)
        self.seen: set[int] = set()
        self.strange: str | None = None
        self._layer = -1

    @torch.compiler.disable()
    def __call__(self, func: Any, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        arguments = Arguments.of(args, kwargs)
        place = self._self_attention(q, k, arguments)
        stock = self._stock(func, arguments, of_self=place is not None)
        site = None if place is None else self.session.site(self._layer, place.grid, q.dtype, self.call)
        if place is None or site is None or not self.session.chain.wants(site):
            return stock(q, k, v, *args, **kwargs)
        return self._chain(site, place, partial(_called, stock, args, kwargs), (q, k, v), arguments)

    def _stock(self, func: Any, arguments: Arguments, of_self: bool) -> Any:
        """What would compute this call without us: an earlier override, else the block's own preferred attention,
        which newer cores give up as soon as there is any override, else the backend."""
        if self.previous is not None:
            return partial(self.previous, func)
        layer = self.family.layer_told(arguments.options, self.call.parts.counts)
        block = None if layer is None or not 0 <= layer < len(self.call.parts.blocks) else self.call.parts.blocks[layer]
        module = None if block is None else block.self_attention if of_self else block.cross_attention
        preferred = getattr(getattr(module, "comfy_attention", None), "function", None)
        return func if preferred is None else preferred

    def _chain(self, site: Site, place: Place, stock: Any, qkv: tuple[Tensor, ...], arguments: Arguments) -> Tensor:
        def backend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return arguments.split_output(stock(*(arguments.join(x) for x in (q, k, v))))

        tokens = site.run.grid.tokens
        elsewhere = self.sparse.name_if_sparse(arguments.options, tokens, self._layer)
        q, k, v = (arguments.split(x) for x in qkv)
        joint = None
        if place.q_start is not None:
            bias = None if arguments.mask is None else key_bias(arguments.mask, len(q), k.shape[2])
            joint = JointTokens(q, k, v, place.q_start, place.k_start, tokens, bias)
            q, k, v = joint.of_grid()
        call = AttentionCall(site, q, k, v, backend, sparse_elsewhere=elsewhere, joint=joint)
        return arguments.join_output(self.session.chain(call))

    def _self_attention(self, q: Tensor, k: Tensor, arguments: Arguments) -> Place | None:
        """Where the grid's tokens are, if this call is a block's self-attention and the first of this pass through it;
        notes of which layer it is."""
        if q.dim() != arguments.dims or self.session.stock is not None:
            return None
        layer = self._layer_of(q, k, arguments)
        if layer is None or layer == self._layer:
            return None
        queries, keys = (x.shape[arguments.token_dim] for x in (q, k))
        place, wrong = self._place(queries, keys, arguments)
        if wrong is None and len(q) != len(self.call.rows):
            wrong = f"{len(q)} rows of {queries} tokens; expected {len(self.call.rows)} rows"
        if wrong is not None:
            self.session.leave_to_stock(f"self-attention of layer {layer} has {wrong}")
            return None
        self._layer = layer
        self.seen.add(layer)
        return place

    def _place(self, queries: int, keys: int, arguments: Arguments) -> tuple[Place | None, str | None]:
        """How a call's tokens lie, or what is wrong with them."""
        known = self.call.inputs.grid
        if self.family.text:
            if queries < known.tokens or keys < queries:
                return None, f"{queries} queries and {keys} keys; expected {known} and text"
            if arguments.mask is not None and arguments.mask.numel() != keys:
                return None, f"a mask of {tuple(arguments.mask.shape)}; expected one for the {keys} keys"
            if keys == queries == known.tokens and arguments.mask is None:
                return Place(known), None
            starts = (n - known.tokens if self.family.text == "before" else 0 for n in (queries, keys))
            return Place(known, *starts), None
        # Not every network tells its sizes, and some have tokens behind the grid that were not counted.
        sizes = arguments.options.get("grid_sizes")
        frames, height, width = sizes if sizes and not known.prefix else (known.frames, known.height, known.width)
        suffix = queries - frames * height * width - known.prefix
        if suffix < 0:
            size = f"{frames} x {height} x {width} tokens and {known.prefix} of a reference"
            return None, f"{queries} tokens; expected {size}"
        return Place(TokenGrid(frames, height, width, known.prefix, suffix)), None

    def _layer_of(self, q: Tensor, k: Tensor, arguments: Arguments) -> int | None:
        """The layer whose self-attention calls; None for any other call.

        Where the network tells the block, its first call is its self-attention, unless the keys are as many as a text's
        may be; else, and where it tells none, the module that calls does.
        """
        layer = self.family.layer_told(arguments.options, self.call.parts.counts)
        if layer is None or self.family.text == "behind":
            found = self._caller()
            if found is None and layer is None and q.shape == k.shape:
                self.strange = "another node's copy of the model calls attention without saying of which block it is"
            return found[0] if found is not None and found[1] else None
        if q.shape != k.shape:
            return None
        if k.shape[arguments.token_dim] != self.call.text or self.family.text:
            return layer
        found = self._caller()
        if found is not None:
            return layer if found[1] else None
        return None if self.session.self_attention_is_replaced() else layer

    def _caller(self) -> tuple[int, bool] | None:
        """The layer of the module that calls attention, and whether it is the layer's self-attention."""
        frame = sys._getframe(3)
        for _ in range(_FRAMES):
            found = self.call.parts.callers.get(id(frame.f_locals.get("self")))
            if found is not None:
                return found
            if frame.f_back is None:
                break
            frame = frame.f_back
        return None


class ContainerOverride(Override):
    """Takes the containers of newer cores too; only a class with this method is given them."""

    @torch.compiler.disable()
    def container_function(self, q: Any, k: Any, v: Any, *args: Any, **kwargs: Any) -> Tensor:
        arguments = Arguments.of(args, kwargs)
        place = self._self_attention(q.peek(), k.peek(), arguments)
        site = None if place is None else self.session.site(self._layer, place.grid, q.peek().dtype, self.call)
        # What would have been called is not told: the function by whose name the model calls attention.
        home = sys.modules[type(self.call.parts.network).__module__]
        func = getattr(home, "optimized_attention", attention.optimized_attention)
        stock = self._stock(func, arguments, of_self=place is not None)
        if place is None or site is None or not self.session.chain.wants(site):
            if self.previous is not None:
                return self.previous.container_function(q, k, v, *args, **kwargs)
            return stock(q, k, v, *args, **kwargs)
        taken = (q.take(), k.take(), v.take())
        return self._chain(site, place, partial(_called, stock, args, kwargs), taken, arguments)


@dataclass(frozen=True)
class Place:
    """The grid of a call; where its tokens begin in the queries and in the keys if others attend with them."""

    grid: TokenGrid
    q_start: int | None = None
    k_start: int = 0


@dataclass(frozen=True)
class Arguments:
    """What a model gives ComfyUI's attention function besides q, k and v, and the layout it asks for.

    q, k and v: (rows, tokens, heads * head_dim), or (rows, heads, tokens, head_dim) if `apart`; the output likewise,
    by `apart_output`.
    """

    heads: int
    mask: Tensor | None
    apart: bool
    apart_output: bool
    options: dict[str, Any]

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        names = ("heads", "mask", "attn_precision", "skip_reshape", "skip_output_reshape")
        given = dict(zip(names, args, strict=False)) | kwargs
        apart, apart_output = (bool(given.get(f"skip_{way}reshape")) for way in ("", "output_"))
        return cls(given["heads"], given.get("mask"), apart, apart_output, given.get("transformer_options") or {})

    @property
    def dims(self) -> int:
        return 4 if self.apart else 3

    @property
    def token_dim(self) -> int:
        return 2 if self.apart else 1

    def split(self, x: Tensor) -> Tensor:
        """A model's tensor as (rows, heads, tokens, head_dim); a view."""
        return x if self.apart else _split(x, self.heads)

    def join(self, x: Tensor) -> Tensor:
        return x if self.apart else _join(x)

    def split_output(self, x: Tensor) -> Tensor:
        return x if self.apart_output else _split(x, self.heads)

    def join_output(self, x: Tensor) -> Tensor:
        return x if self.apart_output else _join(x)


def _called(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return function(q, k, v, *args, **kwargs)


def _split(x: Tensor, heads: int) -> Tensor:
    """(rows, tokens, heads * head_dim) to (rows, heads, tokens, head_dim); a view."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _join(x: Tensor) -> Tensor:
    """The way back; a view of what `_split` made."""
    return x.transpose(1, 2).flatten(2)

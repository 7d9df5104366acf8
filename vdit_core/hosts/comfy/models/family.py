"""What the pack must know of a model family: which networks it has, where their attention is, how their tokens lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor
from torch.nn import Module

from ....call import ModelSignature, TokenGrid


@dataclass(frozen=True)
class Block:
    """A transformer block. kind: "" where a family has one kind. self_attention, cross_attention: the modules that call
    ComfyUI's attention function; the block itself where it does so, None for what it does not have.
    """

    kind: str
    module: Module
    self_attention: Module
    cross_attention: Module | None


@dataclass(frozen=True, eq=False)
class Parts:
    """A network taken apart. blocks: in the order of the layers. counts: of each kind, how many blocks. callers: by the
    id of a module that calls attention its layer, and whether it is the layer's self-attention.
    """

    network: Any
    blocks: tuple[Block, ...]
    counts: Mapping[str, int]
    callers: Mapping[int, tuple[int, bool]]


class Family:
    """A model family; its file has one subclass, and `models.FAMILIES` one of each.

    name: in messages. networks: the classes of ComfyUI that it serves, by their full names; a subclass is none of them.
    unreachable: classes whose attention cannot be served, and why. blocks: each kind, and what the network calls its
    list of blocks, in the order of the forward pass. self_attention, cross_attention: names of a block's parts, "" for
    the block itself. fills_text: whether its prompts are filled with zeros anyway, so that more of them change nothing.
    text: where the prompt's tokens stand if they attend together with the grid's, else "".
    """

    name: ClassVar[str]
    networks: ClassVar[tuple[str, ...]]
    unreachable: ClassVar[tuple[tuple[str, str], ...]] = ()
    blocks: ClassVar[tuple[tuple[str, str], ...]] = (("", "blocks"),)
    self_attention: ClassVar[str] = "self_attn"
    cross_attention: ClassVar[str] = "cross_attn"
    text: ClassVar[Literal["", "before", "behind"]] = ""
    fills_text: ClassVar[bool] = False

    def why_not(self, network: Any) -> str | None:
        """What speaks against a network of these classes, such as that it makes pictures; None if nothing does."""
        return None

    def heads(self, network: Any) -> tuple[int, int]:
        """How many heads a layer has, and how wide each is."""
        raise NotImplementedError

    def kind_of(self, network: Any) -> str:
        """What tells networks of one signature apart, in words that all hosts share."""
        raise NotImplementedError

    def grid_of(self, network: Any, x: Tensor, conds: Mapping[str, Any]) -> TokenGrid:
        """How the tokens of a model call lie, without a prompt's.

        x: (rows, channels, frames, height, width), latents. conds: the call's further inputs, as APPLY_MODEL gets them.
        """
        return TokenGrid(*patches(x, self.patch_of(network)))

    def patch_of(self, network: Any) -> tuple[int, int, int]:
        """How many latents a token has: frames, height, width."""
        frames, height, width = network.patch_size
        return frames, height, width

    def kinds_of(self, network: Any) -> tuple[tuple[str, str], ...]:
        """`blocks`, of a network that may have other ones."""
        return self.blocks

    def layer_told(self, options: Mapping[str, Any], counts: Mapping[str, int]) -> int | None:
        """The layer that the network tells in the transformer options of an attention call; None if it tells none, or
        another block may have told the same. Then the module that calls attention says which it is.

        counts: of each kind, how many blocks there are.
        """
        return options.get("block_index")

    def parts_of(self, network: Any) -> Parts:
        """A network taken apart."""
        blocks = tuple(
            Block(
                kind,
                block,
                getattr(block, self.self_attention) if self.self_attention else block,
                getattr(block, self.cross_attention, None) if self.cross_attention else None,
            )
            for kind, attribute in self.kinds_of(network)
            for block in getattr(network, attribute)
        )
        callers = {id(block.cross_attention): (layer, False) for layer, block in enumerate(blocks)}
        callers |= {id(block.self_attention): (layer, True) for layer, block in enumerate(blocks)}
        callers.pop(id(None), None)
        return Parts(network, blocks, self._counts(network), callers)

    def signature_of(self, network: Any) -> ModelSignature:
        """The shape of a network."""
        return ModelSignature.of_blocks(self._counts(network), *self.heads(network))

    def _counts(self, network: Any) -> dict[str, int]:
        """A kind of which a network has none does not count."""
        counts = {kind: len(getattr(network, attribute)) for kind, attribute in self.kinds_of(network)}
        return {kind: count for kind, count in counts.items() if count}


def class_of(network: Any) -> str:
    """The full name of a network's class."""
    return f"{type(network).__module__}.{type(network).__qualname__}"


def patches(x: Tensor, size: Any) -> tuple[int, int, int]:
    """Patches of (.., frames, height, width) in each direction; what does not fill one is padded."""
    frames, height, width = (-(-n // p) for n, p in zip(x.shape[-3:], size, strict=True))
    return frames, height, width

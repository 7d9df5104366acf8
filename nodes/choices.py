"""The inputs that several nodes share: layers, steps, heads as text, and branches."""

from __future__ import annotations

from comfy_api.latest import io

from ..vdit_core.head_mask import HeadMask
from ..vdit_core.selection import Indices, LayerMask, SelectionError


def indices(name: str, meaning: str, default: str = "all", advanced: bool = False) -> io.String.Input:
    """A text input in the grammar of `vdit_core.selection`; meaning: the beginning of its tooltip."""
    return io.String.Input(
        name,
        default=default,
        advanced=advanced,
        tooltip=f"{meaning}, for example all, 3-7, 0-28/4 or 0%-50%. The help page on selections has all forms.",
    )


def branches(meaning: str) -> io.Combo.Input:
    """The choice of prompts whose attention counts."""
    return io.Combo.Input(
        "branches",
        options=["all", "cond", "uncond"],
        default="all",
        advanced=True,
        tooltip=f"{meaning}: all, cond (the positive prompt) or uncond (the negative one).",
    )


class LayersAndSteps(io.ComfyNode):
    """What nodes check before a prompt runs that choose layers and steps."""

    @classmethod
    def validate_inputs(cls, layers: str, steps: str) -> bool | str:
        return readable(layers=layers, steps=steps)


def readable(**texts: str | None) -> bool | str:
    """True, or why one of these texts cannot be read: the result of a node's `validate_inputs`."""
    for name, text in texts.items():
        if text is None:  # a link brings it
            continue
        try:
            Indices(text)
        except SelectionError as error:
            return f"{name}: {error}"
    return True


def readable_mask(kind: type[LayerMask] | type[HeadMask], text: str | None) -> bool | str:
    """True, or why the text is no mask: the result of a mask node's `validate_inputs`. None: a link brings the text.

    That function must name the text alone. ComfyUI reports its answer once for every input that it names.
    """
    try:
        kind("all" if text is None else text)
    except SelectionError as error:
        return str(error)
    return True

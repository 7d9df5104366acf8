"""Head Mask: which heads of which layers a node acts in, and how strongly."""

from __future__ import annotations

from comfy_api.latest import io

from ..vdit_core.head_mask import HeadMask
from . import categories, choices, sockets


class HeadMaskNode(io.ComfyNode):
    """A grid of cells, layers x heads (web/js/layer_mask.js), over the mask's text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_HeadMask",
            display_name="Head Mask",
            category=categories.TRANSFER,
            description="Chooses heads of layers, each with a strength. It goes wherever a layer mask goes.",
            search_aliases=["select heads", "attention heads", "layers and heads", "transfer strength"],
            inputs=[
                io.String.Input(
                    "mask",
                    default="all",
                    tooltip="The heads as text: layers as in Layer Mask, with heads behind an @, for example 5@0, "
                    "3-7@0-2:0.5 or all, 5@1:0. Without an @ all heads of the layers are meant. Join several with "
                    "commas; the last one that names a head counts. The help page on selections has all forms.",
                ),
                *(
                    io.Int.Input(
                        name,
                        display_name=f"model's {name}",
                        default=0,
                        min=0,
                        max=200,
                        advanced=True,
                        tooltip=f"The number of {name} of the model that the mask is made for. Another model is then "
                        f"refused. 0 allows every model that has the named {name}.",
                    )
                    for name in ("layers", "heads")
                ),
            ],
            outputs=[
                sockets.HeadMask.Output(
                    display_name="head mask", tooltip="The head mask, for transfers, Sparse Attention and Sink Control."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, mask: str | None) -> bool | str:
        return choices.readable_mask(HeadMask, mask)

    @classmethod
    def execute(cls, mask: str, layers: int, heads: int) -> io.NodeOutput:
        made = HeadMask(mask, layers or None, heads or None)
        if layers and heads and not made.names_kinds:
            made.resolve(layers, heads)  # before anything is sampled
        return io.NodeOutput(made)

"""Layer Mask: which layers a transfer acts in, and how strongly."""

from __future__ import annotations

from comfy_api.latest import io

from ..vdit_core.selection import LayerMask
from . import categories, choices, sockets


class LayerMaskNode(io.ComfyNode):
    """A row of cells, one per layer (web/js/layer_mask.js), over the mask's text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_LayerMask",
            display_name="Layer Mask",
            category=categories.TRANSFER,
            description="Chooses the layers that a transfer acts in, each with a strength.",
            search_aliases=["select layers", "block mask", "block weights", "transfer strength"],
            inputs=[
                io.String.Input(
                    "mask",
                    default="all",
                    tooltip="The layers as text, for example all, 3-7 or 0-28/4, each with an optional strength: "
                    "3-7:0.5. Join several with commas; the last one that names a layer counts. Where a model has "
                    "several kinds of blocks, name one: double 3-7, single all. The help page on selections has all "
                    "forms.",
                ),
                io.Int.Input(
                    "layers",
                    display_name="model's layers",
                    default=0,
                    min=0,
                    max=200,
                    advanced=True,
                    tooltip="The number of layers of the model that the mask is made for. Another model is then "
                    "refused. 0 allows every model that has the named layers.",
                ),
            ],
            outputs=[sockets.LayerMask.Output(display_name="layer mask", tooltip="The layer mask, for a transfer.")],
        )

    @classmethod
    def validate_inputs(cls, mask: str | None) -> bool | str:
        return choices.readable_mask(LayerMask, mask)

    @classmethod
    def execute(cls, mask: str, layers: int) -> io.NodeOutput:
        made = LayerMask(mask, made_for=layers or None)
        if layers and not made.names_kinds:
            made.resolve(layers)  # before anything is sampled
        return io.NodeOutput(made)

"""Layer Mask: which layers a transfer acts in, and how strongly."""

from __future__ import annotations

from comfy_api.latest import io

from ..vdit_core.selection import LayerMask, SelectionError
from . import sockets


class LayerMaskNode(io.ComfyNode):
    """A row of cells, one per layer (web/js/layer_mask.js), over the mask's text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_LayerMask",
            display_name="Layer Mask",
            category=sockets.CATEGORY,
            description="Chooses the layers that a transfer acts in, each with a strength.",
            search_aliases=["select layers", "block mask", "block weights"],
            inputs=[
                io.String.Input(
                    "mask",
                    default="all",
                    tooltip="The layers, as text: all, none, 3, 3-7, 0-28/4 (every fourth), early, middle, late, each "
                    "with an optional strength (3-7:0.5), joined by commas. The last term that names a layer counts.",
                ),
                io.Int.Input(
                    "layers",
                    default=0,
                    min=0,
                    max=200,
                    advanced=True,
                    tooltip="How many layers the model has that the mask is for; another model is then refused. "
                    "0: any model that has the layers named.",
                ),
            ],
            outputs=[sockets.LayerMask.Output(display_name="layer mask", tooltip="For a transfer's layers.")],
        )

    @classmethod
    def validate_inputs(cls, mask: str, layers: int) -> bool | str:
        try:
            parsed = LayerMask(mask)
            if layers:
                parsed.resolve(layers)
        except SelectionError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, mask: str, layers: int) -> io.NodeOutput:
        return io.NodeOutput(LayerMask(mask, made_for=layers or None))

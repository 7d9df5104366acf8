"""Sparse Attention: parts of the maps are left out, for speed, or to see what they are worth."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..vdit_core.selection import LayerMask, SelectionError
from ..vdit_core.sparse.config import IF_SLOWER, SparseConfig
from ..vdit_core.sparse.methods import METHODS
from ..vdit_core.sparse.profile import SparseProfile
from ..vdit_core.sparse.sparse_attention import SparseAttention
from . import sockets
from .outcomes import Telling, TellingNode, attach_and_tell

_NAME = "Sparse Attention"


def where_inputs() -> list[io.Input]:
    """How maps are left out, and where they are not; percentages."""
    return [
        io.Combo.Input(
            "method", options=list(METHODS), default="block top-k",
            tooltip="block top-k: the blocks whose mean fits best, chosen at every call. mass: as many as hold a given "
            "mass. window, radial: by place and time alone. exact top-k, exact top-p: the strongest weights of every "
            "query; slow, the ruler for the others.",
        ),
        io.String.Input(
            "dense_layers", default="none",
            tooltip="Layers that are computed whole, as in Layer Mask: all, none, 3, 3-7, early, joined by commas. At "
            "a strength (3-7:0.5), that part of the way from keep to whole.",
        ),
        io.Float.Input(
            "dense_first", default=10.0, min=0.0, max=100.0, step=5.0,
            tooltip="The first steps, in %, are computed whole: there the video's layout is made.",
        ),
        io.Float.Input(
            "dense_last", default=0.0, min=0.0, max=100.0, step=5.0, advanced=True,
            tooltip="The last steps, in %, are computed whole.",
        ),
        io.Boolean.Input(
            "first_frame", default=False, advanced=True,
            tooltip="Always keep the first frame's blocks, whatever the method says of them.",
        ),
        io.Int.Input(
            "minimum_tokens", default=4096, min=0, max=10_000_000, advanced=True,
            tooltip="Smaller maps are computed whole: there is nothing to gain. 0 to see what the method does.",
        ),
        io.Combo.Input(
            "if_slower", options=list(IF_SLOWER), default="dense", advanced=True,
            tooltip="Where the method is not faster than the dense attention (measured once): compute densely, or "
            "sparsely all the same.",
        ),
    ]  # fmt: skip


def settings(
    method: str,
    keep: float,
    dense_layers: str,
    dense_first: float,
    dense_last: float,
    first_frame: bool,
    minimum_tokens: int,
    if_slower: str,
    temperature: float = 1.0,
    profile: SparseProfile | None = None,
) -> SparseConfig:
    """The node's inputs as `SparseConfig`; its percentages become shares."""
    return SparseConfig(
        method=method,
        density=keep / 100,
        profile=profile,
        dense_layers=LayerMask(dense_layers),
        dense_first=dense_first / 100,
        dense_last=dense_last / 100,
        temperature=temperature,
        first_frame=first_frame,
        minimum_tokens=minimum_tokens,
        if_slower=if_slower,
    )


def readable(dense_layers: str) -> bool | str:
    """True, or why the text cannot be read."""
    try:
        LayerMask(dense_layers)
    except SelectionError as error:
        return f"dense_layers: {error}"
    return True


class SparseAttentionNode(TellingNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_SparseAttention",
            display_name=_NAME,
            category=sockets.CATEGORY,
            description="Computes a part of each attention map only, which is faster for long videos. A Sparsity "
            "Profile spends that part on the layers and heads that need it.",
            search_aliases=["faster attention", "block sparse", "speed up wan", "radial attention", "top-k attention"],
            inputs=[
                io.Model.Input("model", tooltip="A Wan2.1 or Wan2.2 model; connect the output to the sampler."),
                io.Float.Input(
                    "keep", default=30.0, min=0.0, max=100.0, step=5.0,
                    tooltip="How much of each map is computed, in % (of its mass, for methods that reach a mass); "
                    "with a profile, the mean over layers and heads. 100: the stock result, bit for bit.",
                ),
                *where_inputs(),
                io.Float.Input(
                    "temperature", default=1.0, min=0.1, max=10.0, step=0.05, advanced=True,
                    tooltip="Of the maps that are not whole: below 1 sharper, above 1 softer. A profile has its own.",
                ),
                sockets.SparseProfile.Input(
                    "profile", optional=True, tooltip="Which layers and heads need how much (Sparsity Profile)."
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The model with sparse attention.")],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, dense_layers: str) -> bool | str:
        return readable(dense_layers)

    @classmethod
    def execute(cls, model: Any, profile: SparseProfile | None = None, **inputs: Any) -> io.NodeOutput:
        editor, telling = SparseAttention(settings(profile=profile, **inputs)), Telling(cls.hidden.unique_id, _NAME)
        patched = attach_and_tell(model, editor, telling, lambda: editor.report.verdict())
        return io.NodeOutput(patched, ui=telling.ui)

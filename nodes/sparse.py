"""Sparse Attention: parts of the maps are left out, for speed, or to see what they are worth."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..vdit_core.head_mask import HeadMask
from ..vdit_core.selection import LayerMask
from ..vdit_core.sparse import presets
from ..vdit_core.sparse.config import IF_SLOWER, SparseConfig
from ..vdit_core.sparse.density_profile import DensityProfile
from ..vdit_core.sparse.methods import BY_STRENGTH, METHODS
from ..vdit_core.sparse.profile import SparseProfile
from ..vdit_core.sparse.sparse_attention import SparseAttention
from . import categories, choices, sockets
from .outcomes import Telling, TellingNode, attach_and_tell

_NAME = "Sparse Attention"


def where_inputs() -> list[io.Input]:
    """How maps are left out, and where they are not; percentages."""
    return [
        io.Combo.Input(
            "method", options=list(METHODS), default="block top-k",
            tooltip="How the computed part is chosen. block top-k takes the blocks with the highest mean scores, "
            "block top-p as many as hold a given mass. window and radial choose by place and time alone. exact top-k "
            "and exact top-p take the strongest weights of every query: slow, the reference for the others.",
        ),
        io.String.Input(
            "dense_layers", default="none",
            tooltip="The layers that are computed whole, written as in Layer Mask: none, 3, 3-7. A strength such as "
            "3-7:0.5 goes half of the way from keep to whole.",
        ),
        sockets.mask(
            "dense_mask",
            "The layers or heads that are computed whole, from Layer Mask or Head Mask. It is used instead of dense "
            "layers.",
        ),
        io.Float.Input(
            "dense_first", display_name="dense first steps (%)", default=10.0, min=0.0, max=100.0, step=5.0,
            tooltip="The part of the steps at the beginning that are computed whole, in %. The layout of the video is"
            " made there.",
        ),
        io.Float.Input(
            "dense_last", display_name="dense last steps (%)", default=0.0, min=0.0, max=100.0, step=5.0, advanced=True,
            tooltip="The part of the steps at the end that are computed whole, in %.",
        ),
        io.Boolean.Input(
            "first_frame", display_name="keep first frame", default=False, advanced=True,
            tooltip="Whether the blocks of the first frame are always kept.",
        ),
        io.Int.Input(
            "minimum_tokens", default=4096, min=0, max=10_000_000, advanced=True,
            tooltip="Maps of fewer tokens are computed whole, because nothing can be gained there. 0 always uses the "
            "method.",
        ),
        io.Combo.Input(
            "if_slower", options=list(IF_SLOWER), default="dense", advanced=True,
            tooltip="What to do where the method is not faster than dense attention, which is measured once: compute "
            "the whole map, or use the method all the same.",
        ),
    ]  # fmt: skip


def preset_input() -> io.Combo.Input:
    """Which published profile counts without one of the user's own; optional, since prompts of before have none."""
    return io.Combo.Input(
        "preset", display_name="published profile", options=list(presets.CHOICES), default=presets.AUTO, optional=True,
        tooltip="A profile made from published measurements of Wan, used if no profile is connected. auto takes the "
        f"one that fits the model, with {' and '.join(BY_STRENGTH)}; where none fits, all heads get alike. none always"
        " gives all alike. A profile that you measure is better.",
    )  # fmt: skip


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
    profile: SparseProfile | DensityProfile | None = None,
    dense_mask: LayerMask | HeadMask | None = None,
    preset: str = presets.AUTO,
) -> SparseConfig:
    """The node's inputs as `SparseConfig`; its percentages become shares, and a mask takes the text's place."""
    return SparseConfig(
        method=method,
        density=keep / 100,
        profile=profile,
        dense_layers=LayerMask(dense_layers) if dense_mask is None else dense_mask,
        dense_first=dense_first / 100,
        dense_last=dense_last / 100,
        temperature=temperature,
        first_frame=first_frame,
        minimum_tokens=minimum_tokens,
        if_slower=if_slower,
        preset=preset,
    )


def readable(dense_layers: str | None) -> bool | str:
    """True, or why the text cannot be read."""
    answer = choices.readable_mask(LayerMask, dense_layers)
    return f"dense_layers: {answer}" if isinstance(answer, str) else answer


class SparseAttentionNode(TellingNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_SparseAttention",
            display_name=_NAME,
            category=categories.SPEED,
            description="Computes only a part of each attention map, which is faster for long videos. A Sparsity "
            "Profile spends that part on the layers and heads that need it.",
            search_aliases=[
                "faster attention", "faster", "speed up", "speed up wan", "lower render time", "long videos",
                "block sparse", "radial attention", "top-k attention",
            ],
            inputs=[
                io.Model.Input("model", tooltip="A Wan2.1 or Wan2.2 model. Connect the output to the sampler."),
                io.Float.Input(
                    "keep", display_name="keep (%)", default=30.0, min=0.0, max=100.0, step=5.0,
                    tooltip="The part of each map that is computed, in %; for top-p methods, the part of its mass. "
                    "With a profile it is the mean over layers and heads. 100 is the stock result, bit for bit.",
                ),
                *where_inputs(),
                io.Float.Input(
                    "temperature", default=1.0, min=0.1, max=10.0, step=0.05, advanced=True,
                    tooltip="The temperature of the maps that are not computed whole. Below 1 they are sharper, above"
                    " 1 softer. A profile has its own temperatures.",
                ),
                sockets.SparseProfile.Input(
                    "profile", optional=True,
                    tooltip="How much each layer and head needs, from Sparsity Profile. It is used instead of a "
                    "published profile."
                ),
                preset_input(),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The model with sparse attention.")],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, dense_layers: str) -> bool | str:
        return readable(dense_layers)

    @classmethod
    def execute(cls, model: Any, profile: SparseProfile | DensityProfile | None = None, **inputs: Any) -> io.NodeOutput:
        editor, telling = SparseAttention(settings(profile=profile, **inputs)), Telling(cls.hidden.unique_id, _NAME)
        patched = attach_and_tell(model, editor, telling, lambda: editor.report.verdict())
        return io.NodeOutput(patched, ui=telling.ui)

"""Sink Inspector and Sink Control: keys that take outsized attention, shown, and taken away."""

from __future__ import annotations

import json
from typing import Any

import comfy.model_management
from comfy_api.latest import io
from torch import Tensor

from ..vdit_core.head_mask import HeadMask
from ..vdit_core.outcome import done
from ..vdit_core.recording.store import AttentionStore
from ..vdit_core.selection import LayerMask
from ..vdit_core.sinks.control import ACTIONS, SinkControl, Targets
from ..vdit_core.sinks.describe import describe, summary
from ..vdit_core.sinks.detect import PARTICIPATION, RATIO, detect
from ..vdit_core.sinks.observer import from_store
from ..vdit_core.sinks.record import SinkRecord
from . import categories, images, progress, sink_pieces, sockets
from .outcomes import Telling, TellingNode, attach_and_tell

_INSTEAD = ("the sinks", "random others")


class SinkInspector(io.ComfyNode):
    """Its panel is web/js/sink_inspector.js."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_SinkInspector",
            display_name="Sink Inspector",
            category=categories.SINKS,
            description="Finds attention sinks: keys that take outsized attention from nearly all queries. Shows them"
            " by layer and head, over the frames and the steps; says what they are like; hands them to Sink Control.",
            search_aliases=[
                "attention sink", "registers", "massive activations", "received attention", "attention heatmap",
                "visualize attention", "attention over frames",
            ],
            inputs=[
                io.MultiType.Input(
                    "record", types=[sockets.SinkRecord, sockets.AttentionStore],
                    tooltip="The statistics of Finish Recording, or a recording of queries and keys.",
                ),
                io.Image.Input("frames", optional=True,
                    tooltip="The decoded video. The panel draws the sinks over its frames."),
                io.Float.Input(
                    "ratio", default=RATIO, min=1.5, max=100_000.0, step=0.5,
                    tooltip="The smallest attention of a sink, as a multiple of the uniform share of a key.",
                ),
                io.Float.Input(
                    "participation", default=PARTICIPATION, min=0.0, max=1.0, step=0.05, advanced=True,
                    tooltip="The smallest participation ratio of a sink: how evenly the queries look at it. 1 means "
                    "all alike, near 0 only a few.",
                ),
                io.Int.Input(
                    "layer", default=-1, min=-1, max=200,
                    tooltip="The layer whose map is drawn. -1 takes the layer of the strongest key.",
                ),
                io.Int.Input(
                    "head", default=-1, min=-1, max=200,
                    tooltip="The head whose map is drawn. -1 takes the head of the strongest key.",
                ),
            ],
            outputs=[
                sockets.Sinks.Output(display_name="sinks", tooltip="The sinks that were found, for Sink Control."),
                io.Image.Output(display_name="by head", tooltip="The strongest key of every layer and head."),
                io.Image.Output(display_name="map", tooltip="Where the attention of a head goes, frame by frame."),
                io.Image.Output(display_name="over steps", tooltip="The strongest key of every layer, step by step."),
                io.String.Output(display_name="report", tooltip="The findings in words."),
                io.String.Output(display_name="figures", tooltip="All findings as JSON."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,  # the panel is one; and of a cached run only output nodes tell the page again
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        record: SinkRecord | AttentionStore | None,
        ratio: float,
        participation: float,
        layer: int,
        head: int,
        frames: Tensor | None = None,
    ) -> io.NodeOutput:
        images.need_matplotlib()
        from ..vdit_core.sinks import pictures

        if record is None:
            raise ValueError(
                "Nothing was measured: choose 'statistics' or 'both' in Record Attention, or connect a recording of "
                "queries and keys."
            )
        measured = _measured(record)
        findings = detect(measured, ratio, participation)
        row, column = _chosen(findings, layer, head)
        ratios = measured.mean_ratios(findings.layers[row])[column]
        sinks = findings.of(findings.layers[row], findings.heads[column])
        model = measured.run.model
        ui = Telling(cls.hidden.unique_id, "Sink Inspector").tell(done(summary(findings)), model)
        return io.NodeOutput(
            Targets.of(findings, model),
            images.as_image(pictures.heads_picture(findings)),
            images.as_image(pictures.over_frames(ratios, findings, sinks, frames)),
            images.as_image(pictures.steps_picture(measured, findings)),
            describe(findings),
            json.dumps(findings.as_json(), indent=1),
            ui=ui | {"vdit_sinks": [sink_pieces.write(measured, findings, frames)]},
        )


def _measured(record: SinkRecord | AttentionStore) -> SinkRecord:
    if isinstance(record, SinkRecord):
        return record
    advance = progress.bar(len(record))

    def next_call() -> None:
        advance()
        progress.stop_if_asked()

    return from_store(record, device=comfy.model_management.get_torch_device(), on_call=next_call)


def _chosen(findings: Any, layer: int, head: int) -> tuple[int, int]:
    """The places of a layer and a head in the findings' tables; -1 is the strongest's.

    Raises:
        ValueError: naming what was not measured, and what was.
    """
    row, column = divmod(int(findings.peak.argmax()), len(findings.heads))
    for name, wanted, there in (("layer", layer, findings.layers), ("head", head, findings.heads)):
        if wanted >= 0 and wanted not in there:
            raise ValueError(f"{name.capitalize()} {wanted} was not measured; there are {name}s {list(there)}.")
    if layer >= 0:
        row = findings.layers.index(layer)
        column = int(findings.peak[row].argmax())
    return row, column if head < 0 else findings.heads.index(head)


class SinkControlNode(TellingNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_SinkControl",
            display_name="Sink Control",
            category=categories.SINKS,
            description="Takes sinks away while the model samples, or does the same to random others. The two videos "
            "show whether the sinks matter.",
            search_aliases=[
                "mask sinks", "remove attention sink", "skip heads", "register tokens", "control experiment",
            ],
            inputs=[
                io.Model.Input("model", tooltip="A Wan2.1 or Wan2.2 model. Connect the output to the sampler."),
                sockets.Sinks.Input("sinks",
                    tooltip="The sinks that Sink Inspector found in the same model, at the same size and length."),
                sockets.mask("mask",
                    "The heads in which sinks are changed, and how strongly, from Head Mask or Layer Mask. Without a "
                    "connection all sinks are changed."),
                io.Combo.Input(
                    "action", options=list(ACTIONS), default="mask",
                    tooltip="What is done to the sinks. mask leaves their keys out. cap limits their attention. mean "
                    "lets their heads give their mean output everywhere. skip lets their heads give nothing.",
                ),
                io.Combo.Input(
                    "of", options=list(_INSTEAD), default=_INSTEAD[0],
                    tooltip="What is changed. Random others are the control experiment: as many tokens of the same "
                    "heads (mask, cap), or as many other heads (mean, skip).",
                ),
                io.Float.Input(
                    "cap", display_name="cap (%)", default=1.0, min=0.01, max=99.0, step=0.5,
                    tooltip="The largest share of all attention that a sink may take, in %. Only the action cap uses "
                    "it.",
                ),
                # Not "seed": to that name the page adds a control that draws another one after every run.
                io.Int.Input(
                    "random_seed", default=0, min=0, max=2**32 - 1, advanced=True,
                    tooltip="The seed that chooses the random others."
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The model without its sinks.")],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        model: Any,
        sinks: Targets,
        action: str,
        of: str,
        cap: float,
        random_seed: int,
        mask: LayerMask | HeadMask | None = None,
    ) -> io.NodeOutput:
        if mask is not None:
            sinks = sinks.within(mask)
        if of == _INSTEAD[1]:
            draw = sinks.random_tokens if action in ("mask", "cap") else sinks.random_heads
            sinks = draw(random_seed)
        control, telling = SinkControl(sinks, action, cap / 100), Telling(cls.hidden.unique_id, "Sink Control")
        return io.NodeOutput(attach_and_tell(model, control, telling, control.verdict), ui=telling.ui)

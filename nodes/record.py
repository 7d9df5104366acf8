"""Record Attention and Finish Recording: the attention of a sampling run, kept for other nodes."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..vdit_core.hosts.comfy import attach, graph
from ..vdit_core.outcome import Verdict
from ..vdit_core.recording.quantization import QUANTIZATIONS
from ..vdit_core.recording.recorder import Recorder
from ..vdit_core.recording.store.storage import TIERS
from ..vdit_core.selection import Indices, Selection
from ..vdit_core.sinks.observer import SinkObserver
from . import categories, choices, memory_budget, sockets
from .outcomes import Telling, forget_what_changed
from .recording import Recording, fingerprint_of

_WHAT = ("queries and keys", "statistics", "both")


class RecordAttention(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_RecordAttention",
            display_name="Record Attention",
            category=categories.TRANSFER,
            description="Watches the sampling run of this model and keeps its self-attention for Finish Recording. "
            "Changes nothing in the video.",
            search_aliases=["capture attention", "save attention maps", "attention store", "source video"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="A Wan2.1 or Wan2.2 model. Connect the output to the sampler of the source video."
                ),
                choices.indices("layers", "The layers (transformer blocks) to record"),
                choices.indices("steps", "The sampling steps to record"),
                choices.branches("The prompts whose attention is recorded"),
                io.Combo.Input(
                    "quantization",
                    options=list(QUANTIZATIONS),
                    default="none",
                    tooltip="How queries and keys are kept. none keeps them as the model computes them. int8 takes "
                    "about half the memory, with nearly the same result.",
                ),
                io.Float.Input(
                    "memory_gb", display_name="memory (GiB)",
                    default=16.0,
                    min=0.1,
                    max=4096.0,
                    step=0.5,
                    tooltip="The memory budget of the recording in GiB, in RAM or on disk. It never takes more than "
                    "is free. A recording that would not fit is refused before the first step, with settings that "
                    "would.",
                ),
                choices.indices("heads", "The attention heads to record", advanced=True),
                io.Combo.Input(
                    "what",
                    options=list(_WHAT),
                    default=_WHAT[0],
                    optional=True,
                    tooltip=f"What is recorded. {_WHAT[0]} are for transfer and for pictures of maps. {_WHAT[1]} say "
                    "how much attention each token gets, for Sink Inspector; they are small enough for every layer "
                    f"and step. {_WHAT[2]} records all of it.",
                ),
                io.Combo.Input(
                    "tier",
                    options=list(TIERS),
                    default=TIERS[0],
                    optional=True,
                    advanced=True,
                    tooltip="Where the recording is kept while it is used. pinned RAM is page-locked: faster to use "
                    "often. GPU is fastest, for small recordings. disk is ComfyUI's folder for temporary files, for "
                    "recordings larger than RAM.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The same model, watched."),
                sockets.AttentionRecorder.Output(display_name="recorder",
                    tooltip="The recorder, for Finish Recording."),
            ],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,
            not_idempotent=True,  # two of the same settings are two recorders, not one entry of the cache
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, layers: str, steps: str, heads: str) -> bool | str:
        return choices.readable(layers=layers, steps=steps, heads=heads)

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> int:
        forget_what_changed(cls.hidden.unique_id)
        return fingerprint_of(cls.hidden.unique_id)

    @classmethod
    def execute(
        cls,
        model: Any,
        layers: str,
        steps: str,
        branches: str,
        quantization: str,
        memory_gb: float,
        heads: str,
        what: str = _WHAT[0],  # prompts of before these inputs do without
        tier: str = TIERS[0],
    ) -> io.NodeOutput:
        selection = Selection(Indices(layers), Indices(heads), Indices(steps), branches)
        nothing = Selection(layers=Indices("none"), branches=branches)
        chosen = nothing if what == _WHAT[1] else selection
        recorder = Recorder(chosen, quantization, tier, memory_budget.granted(memory_gb), memory_budget.temporary())
        observer = None if what == _WHAT[0] else SinkObserver(selection)
        telling = Telling(cls.hidden.unique_id, "Record Attention")
        recording = Recording(recorder, observer, cls.hidden.unique_id, telling)
        if observer is not None:
            model = attach(model, observer, required=True)
        model = attach(model, recorder, recording.ended, required=not recorder.records_nothing)
        return io.NodeOutput(model, recording, ui=telling.ui)


class FinishRecording(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_FinishRecording",
            display_name="Finish Recording",
            category=categories.TRANSFER,
            description="Waits for the sampler that is recorded, and gives out the recording.",
            search_aliases=["attention store", "end recording"],
            inputs=[
                sockets.AttentionRecorder.Input("recorder", tooltip="The recorder that Record Attention gives out."),
                io.Latent.Input("latent", tooltip="The latent of the sampler that ran the recorded model, unchanged."),
            ],
            outputs=[
                sockets.AttentionStore.Output(display_name="store", tooltip="The recorded attention."),
                io.Latent.Output(display_name="latent", tooltip="The same latent."),
                sockets.SinkRecord.Output(
                    display_name="statistics",
                    tooltip="The statistics, for Sink Inspector. Empty if Record Attention was not asked for any.",
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def execute(cls, recorder: Recording, latent: dict[str, Any]) -> io.NodeOutput:
        node = cls.hidden.unique_id
        claimed = recorder.claim(latent["samples"], _upstream(cls.hidden.dynprompt, node), node)
        verdict = Verdict(claimed.verdict.level, ", ".join(filter(None, (claimed.verdict.text, claimed.named))))
        ui = Telling(node, "Finish Recording").tell(verdict, claimed.store.header.model)
        return io.NodeOutput(claimed.store, latent, claimed.measured, ui=ui)


def _upstream(dynprompt: Any, node: str | None) -> set[str]:
    """The nodes that Finish Recording's latent comes from, those of expanded nodes too."""
    if dynprompt is None:
        return set()
    nodes = {name: dynprompt.get_node(name) for name in dynprompt.all_node_ids()}
    return set(graph.ids_upstream(nodes, node, "latent"))

"""Attention Structure: a recording's maps as pictures, and how local they are."""

from __future__ import annotations

import json

import comfy.model_management
from comfy_api.latest import io

from ..vdit_core.outcome import done
from ..vdit_core.recording.store import AttentionStore
from ..vdit_core.recording.store.query import choose
from ..vdit_core.selection import Indices, Selection
from . import choices, images, progress, sockets
from .outcomes import Telling


class AttentionStructure(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_AttentionStructure",
            display_name="Attention Structure",
            category=sockets.CATEGORY,
            description="Shows the attention maps of a recording: the whole map, a band enlarged, frame by frame, how "
            "attention falls with distance, and one map over all recorded steps.",
            search_aliases=["attention map", "visualize attention", "attention heatmap", "plot attention"],
            inputs=[
                sockets.AttentionStore.Input("store", tooltip="The recording: Finish Recording, or a file."),
                io.Int.Input(
                    "layer", default=-1, min=-1, max=200,
                    tooltip="Which layer's map is shown. -1: the middle one of those recorded.",
                ),
                io.Int.Input(
                    "step", default=-1, min=-1, max=10_000,
                    tooltip="Which step's map is shown. -1: the middle one of those recorded.",
                ),
                io.Int.Input(
                    "head", default=-1, min=-1, max=200,
                    tooltip="Which head's map is shown. -1: the mean of all heads.",
                ),
                io.String.Input(
                    "branch", default="cond",
                    tooltip="Whose maps: cond (the positive prompt), uncond (the negative one), another that was "
                    "recorded, such as 'cond 2', or all for the figures of all.",
                ),
                io.Boolean.Input(
                    "log_scale", default=True,
                    tooltip="Colours by the logarithm of the weight: most of a map is faint.",
                ),
                choices.indices("layers", "of which layers to take figures and curves", advanced=True),
                choices.indices("steps", "of which recorded steps to take figures, curves and the animation"),
                io.Combo.Input(
                    "queries", options=["auto", "all", "sampled"], default="auto", advanced=True,
                    tooltip="all: every row of a map. sampled: 1024 random rows, an estimate with standard errors. "
                    "auto: all up to 8192 tokens, and on an NVIDIA GPU.",
                ),
                io.Int.Input(
                    "pooled", default=512, min=16, max=2048, step=16, advanced=True,
                    tooltip="A map of more tokens than this is pooled to so many blocks in each direction.",
                ),
                io.Int.Input(
                    "sample", default=0, min=0, max=4095, advanced=True,
                    tooltip="Which video's map is shown, if several were recorded in one batch.",
                ),
                _tokens("rows", "Which queries' rows are enlarged"),
                _tokens("columns", "Which keys' columns are enlarged"),
            ],
            outputs=[
                io.Image.Output(display_name="map", tooltip="The whole map."),
                io.Image.Output(display_name="band", tooltip="A band around the diagonal, enlarged."),
                io.Image.Output(display_name="frames", tooltip="Attention from frame to frame, every layer."),
                io.Image.Output(display_name="locality", tooltip="How attention falls with distance, every layer."),
                io.Image.Output(display_name="steps", tooltip="The whole map at each step, as frames of a video."),
                io.String.Output(display_name="figures", tooltip="The figures of each layer, as a table."),
                io.String.Output(display_name="report", tooltip="The figures and their errors, as JSON."),
            ],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, layers: str, steps: str) -> bool | str:
        return choices.readable(layers=layers, steps=steps)

    @classmethod
    def execute(
        cls,
        store: AttentionStore,
        layer: int,
        step: int,
        head: int,
        branch: str,
        log_scale: bool,
        layers: str,
        steps: str,
        queries: str,
        pooled: int,
        sample: int,
        rows: str,
        columns: str,
    ) -> io.NodeOutput:
        images.need_matplotlib()
        from ..vdit_core.maps import structure, summary

        grid, device = store.header.grid, comfy.model_management.get_torch_device()
        selection = Selection(Indices(layers), steps=Indices(steps), branches=branch)
        chosen = {
            "auto": structure.auto_queries(store.header, device),
            "all": None,
            "sampled": min(structure.SAMPLED, grid.tokens),
        }
        found = structure.look(
            store,
            selection,
            structure.Choice(branch, layer, step, head, sample, rows, columns),
            chosen[queries],
            pooled,
            device,
            on_call=progress.bar(len(choose(store, selection))),
            on_chunk=progress.stop_if_asked,
        )
        figures = summary.summary(found.observed)
        text = f"{figures['maps']} maps, {figures['queries']} queries each"
        ui = Telling(cls.hidden.unique_id, "Attention Structure").tell(done(text), store.header.model.layers)
        return io.NodeOutput(
            images.as_image(structure.whole(found.shown, log_scale)),
            images.as_image(structure.band(found, log_scale)),
            images.as_image(structure.per_frame(found.observed, found.shown.view)),
            images.as_image(structure.decay(found.observed)),
            images.as_image(*structure.animation(found.shown, log_scale)),
            summary.as_text(figures),
            json.dumps(figures, indent=1),
            ui=ui,
        )


def _tokens(name: str, meaning: str) -> io.String.Input:
    return io.String.Input(
        name,
        default="",
        advanced=True,
        tooltip=f"{meaning}: tokens as first-last, such as 0-1023; up to 1024 every weight is shown, more are pooled. "
        "Empty: a few frames in the middle.",
    )

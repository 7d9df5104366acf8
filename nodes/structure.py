"""Attention Structure: a recording's maps as pictures, and how local they are."""

from __future__ import annotations

import json

import comfy.model_management
from comfy_api.latest import io

from ..vdit_core.outcome import done
from ..vdit_core.recording.store import AttentionStore
from ..vdit_core.recording.store.query import choose
from ..vdit_core.selection import Indices, Selection
from . import categories, choices, images, progress, sockets
from .outcomes import Telling


class AttentionStructure(choices.LayersAndSteps):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_AttentionStructure",
            display_name="Attention Structure",
            category=categories.LOOK,
            description="Shows the attention maps of a recording: the whole map, a band enlarged, frame by frame, how"
            " attention falls with distance, and one map over all recorded steps.",
            search_aliases=[
                "attention map", "visualize attention", "see attention", "attention heatmap", "heat map",
                "plot attention",
            ],
            inputs=[
                sockets.AttentionStore.Input("store", tooltip="The recording, from Finish Recording or from a file."),
                io.Int.Input(
                    "layer", default=-1, min=-1, max=200,
                    tooltip="The layer whose map is shown. -1 shows the middle one of those recorded.",
                ),
                io.Int.Input(
                    "step", default=-1, min=-1, max=10_000,
                    tooltip="The step whose map is shown. -1 shows the middle one of those recorded.",
                ),
                io.Int.Input(
                    "head", default=-1, min=-1, max=200,
                    tooltip="The head whose map is shown. -1 shows the mean of all heads.",
                ),
                io.String.Input(
                    "branch", default="cond",
                    tooltip="The prompt whose maps are shown: cond (positive), uncond (negative), another that was "
                    "recorded, such as 'cond 2', or all.",
                ),
                io.Boolean.Input(
                    "log_scale", default=True,
                    tooltip="Colours follow the logarithm of the weight. Most weights of a map are small, and would "
                    "all look alike without it.",
                ),
                choices.indices("layers", "The layers whose figures and curves are taken", advanced=True),
                choices.indices("steps", "The recorded steps whose figures, curves and pictures are taken"),
                io.Combo.Input(
                    "queries", options=["auto", "all", "sampled"], default="auto", advanced=True,
                    tooltip="How many rows of each map are computed. all computes every row, and takes the "
                    "strongest keys of every row too, which is slow for large maps. sampled computes 1024 random rows, "
                    "an estimate with standard errors. auto computes all up to 8192 tokens, and on an NVIDIA GPU; it "
                    "takes the strongest keys of 128 random rows, as sampled does.",
                ),
                io.Int.Input(
                    "pooled", default=512, min=16, max=2048, step=16, advanced=True,
                    tooltip="The size of the shown map. A map of more tokens is pooled to this many blocks in each "
                    "direction.",
                ),
                io.Int.Input(
                    "sample", default=0, min=0, max=4095, advanced=True,
                    tooltip="The video whose map is shown, if several were recorded in one batch.",
                ),
                _tokens("rows", "The queries whose rows are enlarged"),
                _tokens("columns", "The keys whose columns are enlarged"),
            ],
            outputs=[
                io.Image.Output(display_name="map", tooltip="The whole map, pooled."),
                io.Image.Output(display_name="band", tooltip="A band around the diagonal, at full resolution."),
                io.Image.Output(display_name="frames", tooltip="The attention from frame to frame, for every layer."),
                io.Image.Output(display_name="locality",
                    tooltip="How attention falls with distance in time and space, for every layer."),
                io.Image.Output(display_name="steps", tooltip="The whole map at each step, as frames of a video."),
                io.String.Output(display_name="figures", tooltip="The figures of each layer as a table."),
                io.String.Output(display_name="report", tooltip="The figures and their standard errors as JSON."),
                io.Image.Output(display_name="needed keys",
                    tooltip="The share of the keys that hold 95 % of a query's attention, for every layer and head."),
            ],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

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
        from ..vdit_core.maps.wanted import SAMPLED, Wanted

        grid, device = store.header.grid, comfy.model_management.get_torch_device()
        selection = Selection(Indices(layers), steps=Indices(steps), branches=branch)
        chosen = {
            "auto": structure.auto_queries(store.header, device),
            "all": None,
            "sampled": min(SAMPLED, grid.tokens),
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
            top_queries=None if queries == "all" else Wanted.top_queries,
        )
        figures = summary.summary(found.observed)
        sampled = "" if figures["queries"] == "all" else ", sampled"
        text = f"{figures['maps']} maps, {summary.of_queries(figures)} each{sampled}"
        ui = Telling(cls.hidden.unique_id, "Attention Structure").tell(done(text), store.header.model)
        return io.NodeOutput(
            images.as_image(structure.whole(found.shown, log_scale)),
            images.as_image(structure.band(found, log_scale)),
            images.as_image(structure.per_frame(found.observed, found.shown.view)),
            images.as_image(structure.decay(found.observed)),
            images.as_image(*structure.animation(found.shown, log_scale)),
            summary.as_text(figures),
            json.dumps(figures, indent=1),
            images.as_image(structure.needed(found.observed)),
            ui=ui,
        )


def _tokens(name: str, meaning: str) -> io.String.Input:
    return io.String.Input(
        name,
        default="",
        advanced=True,
        tooltip=f"{meaning}, as tokens first-last, for example 0-1023. Up to 1024 tokens every weight is shown, "
        "more are "
        "pooled. Empty shows a few frames in the middle.",
    )

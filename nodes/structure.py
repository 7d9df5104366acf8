"""Attention Structure: a recording's maps as pictures, and how local they are."""

from __future__ import annotations

import comfy.model_management
from comfy_api.latest import io

from ..vdit_core.record import Selection
from ..vdit_core.selection import Indices
from ..vdit_core.store import AttentionStore, Key
from . import choices, images, progress, report, sockets

#: Above so many tokens "auto" samples queries: all rows of such a map take a CPU minutes.
_EXACT_UP_TO = 8192


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
                io.Combo.Input(
                    "branch", options=["cond", "uncond"], default="cond",
                    tooltip="Whose maps: cond (the positive prompt) or uncond (the negative one).",
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
                    f"auto: all up to {_EXACT_UP_TO} tokens.",
                ),
                io.Int.Input(
                    "pooled", default=512, min=16, max=2048, step=16, advanced=True,
                    tooltip="A map of more tokens than this is pooled to so many blocks in each direction.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="map", tooltip="The whole map."),
                io.Image.Output(display_name="band", tooltip="A band around the diagonal, enlarged."),
                io.Image.Output(display_name="frames", tooltip="Attention from frame to frame, every layer."),
                io.Image.Output(display_name="locality", tooltip="How attention falls with distance, every layer."),
                io.Image.Output(display_name="steps", tooltip="The whole map at each step, as frames of a video."),
                io.String.Output(display_name="figures", tooltip="The figures of each layer, as a table."),
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
    ) -> io.NodeOutput:
        images.need_matplotlib()
        from ..vdit_core.inspect import observe, structure

        grid = store.header.grid
        selection = Selection(Indices(layers), steps=Indices(steps), branches=branch)
        sampled = queries == "sampled" or (queries == "auto" and grid.tokens > _EXACT_UP_TO)
        observed = observe.from_store(
            store,
            selection,
            structure.wanted(grid, pooled),
            min(1024, grid.tokens) if sampled else None,
            device=comfy.model_management.get_torch_device(),
            on_call=progress.bar(len(observe.choose(store, selection))),
            on_chunk=progress.stop_if_asked,
        )
        view = structure.choose_view(observed, branch, layer, step, head)
        views = [structure.View(Key(view.key.evaluation, branch, i), view.head) for i in observed.layers_at(view.key)]
        found = structure.summary(observed)
        text = f"{found['maps']} maps, {'all' if found['queries'] == 'all' else found['queries']} queries each"
        report.show(cls.hidden.unique_id, text, good=True, layers=store.header.model.layers)
        return io.NodeOutput(
            images.as_image(structure.whole(observed, view, log_scale)),
            images.as_image(structure.band(observed, view, log_scale)),
            images.as_image(structure.per_frame(observed, views)),
            images.as_image(structure.decay(observed)),
            images.as_image(*structure.animation(observed, view, log_scale)),
            structure.as_text(found),
        )

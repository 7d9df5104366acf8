"""Head Roles: what each head of a recording looks at, and a mask of the heads of a preset."""

from __future__ import annotations

import json

import comfy.model_management
from comfy_api.latest import io

from ..vdit_core.outcome import Level, Verdict, done
from ..vdit_core.recording.store import AttentionStore
from ..vdit_core.recording.store.query import choose
from ..vdit_core.roles.presets import PRESETS, heads_of, preset_mask
from ..vdit_core.selection import Indices, Selection
from . import categories, choices, images, progress, sockets
from .outcomes import Telling


class HeadRoles(choices.LayersAndSteps):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_HeadRoles",
            display_name="Head Roles",
            category=categories.LOOK,
            description="Shows what each head of a recording looks at: along time, around itself, at the first frame, "
            "at a few tokens. Gives a mask of the heads of a preset, for Live Transfer and Transfer Attention.",
            search_aliases=[
                "camera only", "motion only", "layout only", "keep camera", "motion transfer", "attention heads",
                "head mask", "visualize heads",
            ],
            inputs=[
                sockets.AttentionStore.Input(
                    "store", tooltip="The recording, from Finish Recording or from a file. Several videos in it tell "
                    "more than one: a head moves if its attention does so in any.",
                ),
                sockets.AttentionStore.Input(
                    "second", display_name="second recording", optional=True,
                    tooltip="Another recording of the same model, size, layers and heads. Figures are means of both.",
                ),
                io.Combo.Input(
                    "preset", options=list(PRESETS), default="camera only",
                    tooltip="The heads of the mask. "
                    + ". ".join(f"{name}: {of.meaning}" for name, of in PRESETS.items()) + ".",
                ),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=1.0, step=0.05,
                    tooltip="The strength of every head in the mask. 0 is off.",
                ),
                choices.indices("layers", "The layers whose heads are described", advanced=True),
                choices.indices("steps", "The recorded steps that are looked at"),
                io.String.Input(
                    "branch", default="cond", advanced=True,
                    tooltip="The prompt whose maps count: cond (positive), uncond (negative), another that was "
                    "recorded, such as 'cond 2', or all.",
                ),
                io.Combo.Input(
                    "queries", options=["auto", "all", "sampled"], default="auto", advanced=True,
                    tooltip="How many rows of each map are computed. all computes every row. sampled computes 1024 "
                    "random rows. auto computes all up to 8192 tokens.",
                ),
            ],
            outputs=[
                sockets.HeadMask.Output(display_name="heads", tooltip="The preset's heads, for a transfer."),
                io.Image.Output(display_name="roles", tooltip="Every head's role and score. The preset's heads are "
                    "framed."),
                io.String.Output(display_name="table", tooltip="Every head's role and figures as a table (Markdown)."),
                io.String.Output(display_name="report", tooltip="The same, and all presets' masks, as JSON."),
            ],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        store: AttentionStore,
        preset: str,
        strength: float,
        layers: str,
        steps: str,
        branch: str,
        queries: str,
        second: AttentionStore | None = None,
    ) -> io.NodeOutput:
        images.need_matplotlib()
        from ..vdit_core.roles import describe, look, pictures

        stores = [store] if second is None else [store, second]
        selection = Selection(Indices(layers), steps=Indices(steps), branches=branch)
        sampled = min(look.SAMPLED, store.header.grid.tokens)
        chosen = {"auto": look.auto_queries(store.header), "all": None, "sampled": sampled}
        found = look.look(
            stores,
            selection,
            chosen[queries],
            comfy.model_management.get_torch_device(),
            on_call=progress.bar(sum(len(choose(one, selection)) for one in stores)),
            on_chunk=progress.stop_if_asked,
        )
        heads = heads_of(preset, found)
        title = f"Head roles · {found.table.run.grid} · framed: {preset}"
        ui = Telling(cls.hidden.unique_id, "Head Roles").tell(_verdict(preset, len(heads), len(found.roles)),
                                                              store.header.model)  # fmt: skip
        return io.NodeOutput(
            preset_mask(preset, found, strength),
            images.as_image(pictures.roles_picture(found, title, heads)),
            describe.as_text(found),
            json.dumps(describe.as_json(found), indent=1),
            ui=ui,
        )


def _verdict(preset: str, heads: int, of: int) -> Verdict:
    if not heads:
        roles = ", ".join(PRESETS[preset].roles)
        return Verdict(Level.PARTLY, f"no head is {roles}: the mask is empty, choose another preset")
    return done(f"{preset}: {heads} of {of} heads")

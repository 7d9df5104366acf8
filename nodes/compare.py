"""Compare Attention: how alike the maps of two recordings are."""

from __future__ import annotations

import comfy.model_management
from comfy_api.latest import io

from ..vdit_core.outcome import done
from ..vdit_core.recording.store import AttentionStore
from ..vdit_core.recording.store.query import choose
from ..vdit_core.selection import Indices, Selection
from . import categories, choices, images, progress, sockets
from .outcomes import Telling


class CompareAttention(choices.LayersAndSteps):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_CompareAttention",
            display_name="Compare Attention",
            category=categories.LOOK,
            description="Measures how alike the attention maps of two recordings are, for every layer and head. Two "
            "baselines are shown beside them: the first prompt from another seed, and maps with shuffled tokens. Of "
            "two models it compares how attention falls with distance, the frame-by-frame map, and what heads do.",
            search_aliases=[
                "attention similarity", "compare attention maps", "attention difference", "compare prompts",
                "compare seeds", "compare models",
            ],
            inputs=[
                sockets.AttentionStore.Input("first", display_name="first recording", tooltip="The first recording."),
                sockets.AttentionStore.Input("second", display_name="second recording",
                    tooltip="The second recording, for example of another prompt, another seed or another model."),
                sockets.AttentionStore.Input(
                    "baseline", display_name="baseline recording", optional=True,
                    tooltip="A recording of the first prompt from another seed. It shows how alike two maps are by "
                    "chance.",
                ),
                choices.indices("layers", "The layers to compare"),
                choices.indices("steps", "The recorded steps to compare"),
                choices.branches("The prompts whose attention is compared"),
                io.Int.Input(
                    "other_step", default=-1, min=-1, max=10_000, advanced=True,
                    tooltip="The step of the second recording that every step of the first is compared with. -1 takes"
                    " the step at the same noise level.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="likeness", tooltip="The similarity measures, layer by layer."),
                io.String.Output(display_name="verdict", tooltip="The finding in words."),
                io.String.Output(display_name="figures", tooltip="All figures by layer and head, as JSON."),
            ],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        first: AttentionStore,
        second: AttentionStore,
        layers: str,
        steps: str,
        branches: str,
        other_step: int,
        baseline: AttentionStore | None = None,
    ) -> io.NodeOutput:
        images.need_matplotlib()
        from ..vdit_core.maps import across, compare
        from ..vdit_core.maps.needed import Published

        selection = Selection(Indices(layers), steps=Indices(steps), branches=branches)
        others = [other for other in (second, baseline) if other is not None]
        ui = Telling(cls.hidden.unique_id, "Compare Attention")
        if across.are_of_two_models(first, second):
            return _two_models([first, *others], selection, ui)
        advance = progress.bar(len(choose(first, selection)) * len(others))
        found = [
            compare.compare(
                first,
                other,
                selection,
                None if other_step < 0 else other_step,
                device=comfy.model_management.get_torch_device(),
                on_call=advance,
                on_chunk=progress.stop_if_asked,
            )
            for other in others
        ]
        cosine = found[0].means()["measured"]["cosine"]
        text = f"cosine similarity {cosine:.3f}, {found[0].pairs} pairs of maps"
        shown = images.as_image(compare.picture(*found))
        said = ui.tell(done(text), first.header.model)
        published = Published.of(first.header)
        texts = (write(*found, published=published) for write in (compare.verdict, compare.as_json))
        return io.NodeOutput(shown, *texts, ui=said)


def _two_models(stores: list[AttentionStore], selection: Selection, ui: Telling) -> io.NodeOutput:
    """The first of these recordings against the second, and against the third if there is one."""
    from ..vdit_core.maps import across
    from ..vdit_core.maps.across_picture import across_picture
    from ..vdit_core.maps.needed import Published

    advance = progress.bar(sum(len(choose(store, selection)) for store in stores))
    device = comfy.model_management.get_torch_device()
    found = across.compare_stores(stores, selection, device, advance, progress.stop_if_asked)
    alike = ", ".join(f"{name} {value:.2f}" for name, value in found[0].means().items() if value is not None)
    said = ui.tell(done(f"two models, alike in {alike}"), stores[0].header.model)
    published = [Published.of(store.header) for store in stores[:2]]
    texts = (write(*found, published=published) for write in (across.verdict, across.as_json))
    return io.NodeOutput(images.as_image(across_picture(*found)), *texts, ui=said)

"""Transfer Attention and Live Transfer: the source's attention maps, the target's values."""

from __future__ import annotations

from functools import partial
from typing import Any

from comfy_api.latest import io

from ..vdit_core.head_mask import HeadMask
from ..vdit_core.hosts.comfy import fills_text
from ..vdit_core.recording.store import AttentionStore
from ..vdit_core.selection import Indices, LayerMask
from ..vdit_core.transfer import LiveTransfer, Transfer, TransferConfig
from . import categories, choices, sockets
from .live_batch import batch, other_inputs
from .outcomes import Telling, TellingNode, attach_and_tell
from .packed import need_video_alone

TARGETS = 4
#: What artists search for, and a transfer does.
_ALIASES = [
    "attention map transfer", "attention injection", "motion transfer", "camera motion", "keep motion", "keep camera",
    "same motion", "same camera", "same composition", "consistent motion", "change color", "recolor", "season",
]  # fmt: skip


def where_inputs() -> list[io.Input]:
    """What all transfers ask: where, and how much."""
    return [
        sockets.mask(
            "mask",
            "The layers to transfer, each with a strength, from Layer Mask; or heads of layers, from Head Mask. "
            "Without a connection all layers are transferred.",
        ),
        choices.indices("steps", "The sampling steps to transfer in"),
        io.Float.Input(
            "strength",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="How much of the source's maps is used. 1 takes the source's maps, 0 the target's own (bit for "
            "bit the stock result), values between blend the two. The strengths of the mask are multiplied by it.",
        ),
        choices.branches("The prompts whose attention is transferred"),
        choices.indices("heads", "The attention heads to transfer", advanced=True),
    ]


def where(mask: LayerMask | HeadMask | None, steps: str, strength: float, branches: str, heads: str) -> TransferConfig:
    """What these inputs say."""
    return TransferConfig((mask or LayerMask()).scaled(strength), Indices(heads), Indices(steps), branches)


def further_targets() -> list[io.Input]:
    """The prompts of more targets in one batch."""
    return [
        io.Conditioning.Input(
            f"target_{n}",
            display_name=f"target prompt {n}",
            optional=True,
            tooltip="The prompt of a further target in the same batch.",
        )
        for n in range(2, TARGETS + 1)
    ]


def prompts_of(target: list[Any] | None, more: dict[str, list[Any] | None]) -> list[list[Any]]:
    """All target prompts that are connected."""
    return [prompt for prompt in (target, *(further for _, further in sorted(more.items()))) if prompt is not None]


class TransferNode(TellingNode):
    """What both nodes check before a prompt runs."""

    @classmethod
    def validate_inputs(cls, steps: str, heads: str) -> bool | str:
        return choices.readable(steps=steps, heads=heads)


class TransferAttention(TransferNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_TransferAttention",
            display_name="Transfer Attention (layer mask)",
            category=categories.TRANSFER,
            description="Samples with the attention maps of a recorded video in place of the model's own. The video "
            "keeps the source's motion and camera and takes its content from this prompt. Use the seed, size and "
            "sampler settings of the source.",
            search_aliases=_ALIASES,
            inputs=[
                io.Model.Input("model",
                    tooltip="The model that samples the target. Connect the output to the sampler."),
                sockets.AttentionStore.Input("store",
                    tooltip="The attention of the source, from Finish Recording or from a file."),
                *where_inputs(),
                io.Float.Input(
                    "gap", display_name="largest gap",
                    default=0.001,
                    min=0.001,
                    max=1.0,
                    step=0.001,
                    advanced=True,
                    tooltip="How far apart the noise levels of a recorded and a sampled step may be. Widen it to use "
                    "a recording that was made with other steps; each step then takes the nearest one.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The model with the source's maps.")],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        model: Any,
        store: AttentionStore,
        steps: str,
        strength: float,
        branches: str,
        heads: str,
        gap: float,
        mask: LayerMask | HeadMask | None = None,
    ) -> io.NodeOutput:
        transfer = Transfer(store, where(mask, steps, strength, branches, heads), gap)
        telling = Telling(cls.hidden.unique_id, "Transfer Attention")
        patched = attach_and_tell(model, transfer, telling, lambda: transfer.report.verdict())
        return io.NodeOutput(patched, ui=telling.ui)


class LiveTransferNode(TransferNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_LiveTransfer",
            display_name="Live Transfer",
            category=categories.TRANSFER,
            description="Samples a source and its targets in one batch from the same noise, all with the source's "
            "attention maps. Nothing is stored: any size and length works. Item 0 of the batch is the source.",
            search_aliases=[*_ALIASES, "video to video", "v2v", "variations"],
            inputs=[
                io.Model.Input("model", tooltip="The model. Connect the output to the sampler."),
                io.Conditioning.Input(
                    "source",
                    display_name="source prompt",
                    tooltip="The prompt of the source video, whose motion and camera are kept.",
                ),
                io.Conditioning.Input(
                    "target", display_name="target prompt", tooltip="The prompt of the target video."
                ),
                *further_targets(),
                io.Latent.Input(
                    "latent",
                    display_name="empty latent",
                    tooltip="One empty latent. It is repeated for source and targets, with the same noise. For "
                    "video to video: the footage's latent, and a denoise below 1 at the sampler.",
                ),
                *where_inputs(),
                io.Latent.Input(
                    "footage",
                    optional=True,
                    tooltip="A video's latent, from VAE Encode. The source is then this video, noised to each step's "
                    "level, instead of what the model makes of the source prompt.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model, for the sampler."),
                io.Conditioning.Output(
                    display_name="positive",
                    tooltip="The prompts, for the sampler's positive input: one for each item of the batch.",
                ),
                io.Latent.Output(
                    display_name="latent",
                    tooltip="The latents, for the sampler: one item for each prompt, all with the same noise.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        source: list[Any],
        target: list[Any],
        latent: dict[str, Any],
        steps: str,
        strength: float,
        branches: str,
        heads: str,
        mask: LayerMask | HeadMask | None = None,
        footage: dict[str, Any] | None = None,
        **more: list[Any] | None,
    ) -> io.NodeOutput:
        positive, latents = batch([source, *prompts_of(target, more)], latent, fills_text(model))
        driven = None
        if footage is not None:
            need_video_alone(footage["samples"])
            driven = footage["samples"]
        transfer = LiveTransfer(where(mask, steps, strength, branches, heads), footage=driven)
        telling = Telling(cls.hidden.unique_id, "Live Transfer")
        patched = attach_and_tell(
            model, transfer, telling, lambda: transfer.report.verdict(), partial(other_inputs, positive, latents)
        )
        return io.NodeOutput(patched, positive, latents, ui=telling.ui)

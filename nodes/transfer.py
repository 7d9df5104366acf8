"""Transfer Attention and Live Transfer: the source's attention maps, the target's values."""

from __future__ import annotations

from functools import partial
from typing import Any

from comfy_api.latest import io

from ..vdit_core.recording.store import AttentionStore
from ..vdit_core.selection import Indices, LayerMask
from ..vdit_core.transfer import LiveTransfer, Transfer, TransferConfig
from . import choices, sockets
from .live_batch import batch, other_inputs
from .outcomes import Telling, TellingNode, attach_and_tell

_TARGETS = 4
_ALIASES = ["attention map transfer", "attention injection", "motion transfer", "video edit"]


def _where_inputs() -> list[io.Input]:
    """What both transfers ask: where, and how much."""
    return [
        sockets.LayerMask.Input(
            "mask", optional=True, tooltip="Which layers, each with a strength (Layer Mask). Not connected: all layers."
        ),
        choices.indices("steps", "in which sampling steps to transfer"),
        io.Float.Input(
            "strength",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="1: the source's maps; 0: the target's own, bit for bit the stock result; between: a blend. "
            "Multiplies the mask's strengths.",
        ),
        choices.branches("in which prompts' attention to transfer"),
        choices.indices("heads", "in which attention heads to transfer", advanced=True),
    ]


def _where(mask: LayerMask | None, steps: str, strength: float, branches: str, heads: str) -> TransferConfig:
    return TransferConfig((mask or LayerMask()).scaled(strength), Indices(heads), Indices(steps), branches)


class _TransferNode(TellingNode):
    """What both nodes check before a prompt runs."""

    @classmethod
    def validate_inputs(cls, steps: str, heads: str) -> bool | str:
        return choices.readable(steps=steps, heads=heads)


class TransferAttention(_TransferNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_TransferAttention",
            display_name="Transfer Attention (layer mask)",
            category=sockets.CATEGORY,
            description="Samples with the attention maps of a recorded video in the place of the model's own: the "
            "source's motion and camera, this prompt's content. Use the source's seed, size and sampler settings.",
            search_aliases=_ALIASES,
            inputs=[
                io.Model.Input("model", tooltip="The model that samples the target; its output goes to the sampler."),
                sockets.AttentionStore.Input("store", tooltip="The source's attention: Finish Recording, or a file."),
                *_where_inputs(),
                io.Float.Input(
                    "gap",
                    default=0.001,
                    min=0.001,
                    max=1.0,
                    step=0.001,
                    advanced=True,
                    tooltip="How far apart the noise levels of recorded and sampled steps may be. Widen it to use a "
                    "recording made with other steps; each step then takes the nearest.",
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
        mask: LayerMask | None = None,
    ) -> io.NodeOutput:
        transfer = Transfer(store, _where(mask, steps, strength, branches, heads), gap)
        telling = Telling(cls.hidden.unique_id, "Transfer Attention")
        patched = attach_and_tell(model, transfer, telling, lambda: transfer.report.verdict())
        return io.NodeOutput(patched, ui=telling.ui)


class LiveTransferNode(_TransferNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        more = [
            io.Conditioning.Input(f"target_{n}", optional=True, tooltip="A further target in the same batch.")
            for n in range(2, _TARGETS + 1)
        ]
        return io.Schema(
            node_id="VDiT_LiveTransfer",
            display_name="Live Transfer",
            category=sockets.CATEGORY,
            description="Samples a source and its targets in one batch from the same noise, all with the source's "
            "attention maps. Nothing is stored: any size and length works. Item 0 of the batch is the source.",
            search_aliases=_ALIASES,
            inputs=[
                io.Model.Input("model", tooltip="The model; connect the output to the sampler."),
                io.Conditioning.Input("source", tooltip="The source's prompt: its motion and camera are kept."),
                io.Conditioning.Input("target", tooltip="The target's prompt."),
                *more,
                io.Latent.Input(
                    "latent", tooltip="One empty latent; it is repeated for source and targets, same noise."
                ),
                *_where_inputs(),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="For the sampler."),
                io.Conditioning.Output(display_name="positive", tooltip="For the sampler: one prompt per batch item."),
                io.Latent.Output(display_name="latent", tooltip="For the sampler: one item per prompt, same noise."),
            ],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        source: list,
        target: list,
        latent: dict[str, Any],
        steps: str,
        strength: float,
        branches: str,
        heads: str,
        mask: LayerMask | None = None,
        **more: list | None,
    ) -> io.NodeOutput:
        targets = [target, *(more[name] for name in sorted(more) if more[name] is not None)]
        positive, latents = batch([source, *targets], latent)
        transfer = LiveTransfer(_where(mask, steps, strength, branches, heads))
        telling = Telling(cls.hidden.unique_id, "Live Transfer")
        patched = attach_and_tell(
            model, transfer, telling, lambda: transfer.report.verdict(), partial(other_inputs, positive, latents)
        )
        return io.NodeOutput(patched, positive, latents, ui=telling.ui)

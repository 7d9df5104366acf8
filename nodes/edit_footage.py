"""Edit Footage: a clip from outside, changed by a prompt under its own attention maps."""

from __future__ import annotations

from functools import partial
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..vdit_core.footage.config import EditConfig, FootageError
from ..vdit_core.footage.fit import check_fit
from ..vdit_core.footage.report import EditReport
from ..vdit_core.head_mask import HeadMask
from ..vdit_core.hosts.comfy import FootageGuider, fills_text
from ..vdit_core.outcome import idle
from ..vdit_core.selection import LayerMask
from ..vdit_core.transfer import LiveTransfer
from . import categories
from .live_batch import batch
from .outcomes import Telling, attach_and_tell
from .transfer import TransferNode, further_targets, prompts_of, where, where_inputs

_DEFAULT = EditConfig()


class EditFootage(TransferNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_EditFootage",
            display_name="Edit Footage",
            category=categories.TRANSFER,
            description="Changes one thing in a clip of yours and keeps its motion: samples from the clip itself, by "
            "the difference of two prompts, with the clip's own attention maps. Connect both outputs to "
            "SamplerCustomAdvanced, with a sampler that adds no noise (euler). It takes the time of two videos.",
            search_aliases=[
                "video to video", "v2v", "edit video", "flowedit", "restyle", "relight", "keep motion",
                "keep camera", "same composition", "season", "weather", "recolor", "change color", "change material",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The model that edits."),
                io.MultiType.Input("footage", [io.Video, io.Image],
                    tooltip="The clip: a video, or its frames as images."),
                io.Vae.Input("vae", tooltip="The model's VAE."),
                io.Conditioning.Input("source", display_name="source prompt", tooltip="What the clip shows."),
                io.Conditioning.Input("target", display_name="target prompt", optional=True,
                    tooltip="What the edited clip shall show: the source prompt with one thing changed. Without it the "
                    "clip is only walked through, so that Record Attention can record its maps for many edits."),
                *further_targets(),
                io.Conditioning.Input("negative", display_name="negative prompt", tooltip="The negative prompt."),
                io.Float.Input(
                    "change", default=_DEFAULT.change, min=0.05, max=1.0, step=0.05,
                    tooltip="How much may change: the share of the sampling schedule that is used. The first part of "
                    "it, which decides the layout, is left out.",
                ),
                io.Float.Input(
                    "target_cfg", default=_DEFAULT.target_guidance, min=0.0, max=100.0, step=0.1,
                    tooltip="The guidance towards the target prompt. More of it makes a stronger edit, and keeps less.",
                ),
                io.Float.Input(
                    "source_cfg", default=_DEFAULT.source_guidance, min=0.0, max=100.0, step=0.1, advanced=True,
                    tooltip="The guidance towards the source prompt, at most that of the target.",
                ),
                io.Int.Input(
                    "draws", default=_DEFAULT.draws, min=1, max=64, advanced=True,
                    tooltip="How many draws of noise are averaged in each step. Each takes the time of two videos more "
                    "and brings the edit nearer to what the prompts say.",
                ),
                io.Float.Input(
                    "finish", default=_DEFAULT.finish, min=0.0, max=1.0, step=0.01, advanced=True,
                    tooltip="If the last step begins at a noise level of at most this, it gives what the model makes "
                    "of the edit, which cleans it. 0 carries over what the model cannot predict of the clip in the "
                    "last step too: it keeps grain, and traces of what was there.",
                ),
                io.Float.Input(
                    "hold", default=_DEFAULT.hold, min=0.0, max=1.0, step=0.05, advanced=True,
                    tooltip="Puts the clip back where the edit changed it by less than this share of its largest "
                    "change: an automatic region for an edit of one thing. 0.25 is a good one; 0 is off.",
                ),
                *where_inputs(),
                io.Mask.Input(
                    "region", optional=True,
                    tooltip="Where the edit may happen: white. Elsewhere the clip stays as it is. One mask, or one for "
                    "each frame.",
                ),
            ],
            outputs=[
                io.Guider.Output(display_name="guider", tooltip="The edit, for SamplerCustomAdvanced."),
                io.Latent.Output(display_name="latent",
                    tooltip="The clip, for SamplerCustomAdvanced: once for each target prompt."),
            ],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        model: Any,
        footage: Any,
        vae: Any,
        source: list[Any],
        negative: list[Any],
        change: float,
        target_cfg: float,
        source_cfg: float,
        draws: int,
        finish: float,
        hold: float,
        steps: str,
        strength: float,
        branches: str,
        heads: str,
        target: list[Any] | None = None,
        mask: LayerMask | HeadMask | None = None,
        region: Tensor | None = None,
        **more: list[Any] | None,
    ) -> io.NodeOutput:
        config = EditConfig(change, source_cfg, target_cfg, draws, finish, hold)
        samples = encoded(footage, vae, model)
        targets = prompts_of(target, more)
        if not targets:
            strength = 0.0  # nothing takes the clip's maps
        positive, _ = batch([source, *targets], {"samples": samples}, fills_text(model))
        latent: dict[str, Any] = {"samples": samples.repeat(max(1, len(targets)), 1, 1, 1, 1)}
        if region is not None:
            latent["noise_mask"] = region.reshape(-1, 1, *region.shape[-2:])
        transfer, report = LiveTransfer(where(mask, steps, strength, branches, heads)), EditReport()
        telling = Telling(cls.hidden.unique_id, "Edit Footage")
        patched = attach_and_tell(model, transfer, telling, lambda: report.verdict(transfer.report.verdict()))
        nothing = partial(_nothing, telling, change)
        guider = FootageGuider(patched, positive, negative, samples, config, report, nothing)
        return io.NodeOutput(guider, latent, ui=telling.ui)


def encoded(footage: Any, vae: Any, model: Any) -> Tensor:
    """A clip's latents, (1, channels, frames, height, width). footage: a VIDEO, or an IMAGE of its frames.

    Raises:
        FootageError: if its size or length does not fit the VAE, or the VAE does not fit the model.
    """
    frames: Tensor = footage if isinstance(footage, Tensor) else footage.get_components().images
    temporal = vae.temporal_compression_decode()
    if temporal is None:
        raise FootageError("This VAE is one of pictures; connect the VAE of the video model.")
    check_fit(frames.shape[2], frames.shape[1], len(frames), vae.spacial_compression_encode(), temporal)
    samples: Tensor = vae.encode(frames[..., :3])
    channels = model.model.latent_format.latent_channels
    if samples.shape[1] != channels:
        raise FootageError(
            f"This VAE's latents have {samples.shape[1]} channels, and the model takes {channels}: connect its own VAE."
        )
    return samples


def _nothing(telling: Telling, change: float) -> None:
    telling.tell(idle(f"nothing to edit: all steps of this sampler are among those that change {change:g} leaves out"))

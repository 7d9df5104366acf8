"""Layer Sweep: the target sampled once for each layer with the source's maps in it, to find the layers that carry
structure."""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import comfy.model_management
import comfy.samplers
import folder_paths
import torch
from comfy_api.latest import io
from torch import Tensor

from ..vdit_core import outcome
from ..vdit_core.hosts.comfy import attach, fills_text, grid, signature
from ..vdit_core.hosts.comfy.samplers import with_one_noise
from ..vdit_core.selection import Indices
from ..vdit_core.sweep.checkpoint import SweepFolder, fingerprint
from ..vdit_core.sweep.plan import AT_ONCE, MODES, Sweep, batches
from ..vdit_core.sweep.run import missing, run
from ..vdit_core.transfer import LiveTransfer, TransferConfig
from . import choices, images, sampling, sockets
from .live_batch import batch
from .outcomes import Telling
from .packed import need_video_alone
from .sampling import Sampling
from .sweep_progress import Progress, Steps

_SOURCE, _TARGET = "source prompt", "target prompt"
_NAMES = ("source", "plain target")  # on the sheet: a node does not know its prompts' texts


class LayerSweep(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_LayerSweep",
            display_name="Layer Sweep",
            category=sockets.CATEGORY,
            description="Finds the layers that carry a video's structure: samples the source, the target, and the "
            "target once for each layer with the source's attention maps in that layer, and scores them. It takes the"
            " time of as many videos as the model has layers, two more, and one more for each batch.",
            search_aliases=["structure layers", "find layers", "layer ablation", "block sweep"],
            inputs=[
                io.Model.Input("model", tooltip="A Wan2.1 or Wan2.2 model."),
                io.Conditioning.Input("source", display_name="source prompt",
                    tooltip="The prompt of the source video, whose motion and camera the sweep looks for."),
                io.Conditioning.Input(
                    "target", display_name="target prompt",
                    tooltip="The prompt of the target video.",
                ),
                io.Conditioning.Input(
                    "negative", display_name="negative prompt",
                    tooltip="The negative prompt of all videos.",
                ),
                io.Vae.Input("vae", tooltip="The VAE that decodes the videos. They are compared as pictures."),
                io.Latent.Input(
                    "latent", display_name="empty latent",
                    tooltip="One empty latent. Every video starts from the same noise.",
                ),
                *sampling.settings(),
                io.Combo.Input(
                    "mode", options=list(MODES), default="each",
                    tooltip="The layers that each video takes from the source: one (each), all up to it (first), all "
                    "from it on (last), or all but one.",
                ),
                choices.indices("transfer_steps", "The sampling steps to transfer in", advanced=True),
                io.Int.Input(
                    "videos_per_batch", default=0, min=0, max=202, advanced=True,
                    tooltip="How many videos are sampled at once, the source among them. 0 takes as many as the "
                    "free memory "
                    f"holds, {AT_ONCE} at most. Every batch samples the source again, so large batches are faster. "
                    "Finished batches are kept when the sweep is interrupted.",
                ),
            ],
            outputs=[
                sockets.LayerMask.Output(
                    display_name="structure layers",
                    tooltip="The layers that bring the target at least half as near to the source as the best one.",
                ),
                io.Image.Output(display_name="chart", tooltip="A chart of how near each video is to the source."),
                io.Image.Output(display_name="videos",
                    tooltip="Frames of the source, the target and every video of the sweep."),
                io.String.Output(display_name="scores", tooltip="All scores as a table."),
                io.String.Output(display_name="report", tooltip="All scores and settings as JSON."),
            ],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, transfer_steps: str, videos_per_batch: int, sampler_name: str) -> bool | str:
        if videos_per_batch == 1:
            return "videos_per_batch: a batch of 1 holds no target beside the source; use 0 (what fits), or 2 and more."
        if (wrong := with_one_noise(comfy.samplers.sampler_object(sampler_name))[1]) is not None:
            return f"sampler_name: {sampler_name} cannot be swept: {wrong}. Use euler, or another that adds no noise."
        return choices.readable(transfer_steps=transfer_steps)

    @classmethod
    def execute(
        cls,
        model: Any,
        source: list[Any],
        target: list[Any],
        negative: list[Any],
        vae: Any,
        latent: dict[str, Any],
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        mode: str,
        transfer_steps: str,
        videos_per_batch: int,
    ) -> io.NodeOutput:
        images.need_matplotlib()
        need_video_alone(latent["samples"])
        if latent["samples"].shape[2] < 2:
            raise ValueError(
                "The latent holds a single frame, and the sweep scores motion: use a length of 5 frames or more."
            )
        from ..vdit_core.sweep import pictures, scores

        network = signature(model)
        inputs = {"source": source, "target": target, "negative": negative, "latent": latent}
        settings: dict[str, str | int | float] = {
            "seed": seed,
            "steps": steps,
            "cfg": cfg,
            "sampler": sampler_name,
            "scheduler": scheduler,
        }
        sweep = Sweep(
            _SOURCE,
            _TARGET,
            network.layers,
            mode,
            TransferConfig(steps=Indices(transfer_steps)),
            settings | {"model": _mark(model)} | {name: _digest(value) for name, value in inputs.items()},
        )
        folder = SweepFolder(_place(sweep), sweep)
        done = folder.load(logging.warning)
        at_once = videos_per_batch or _fitting(model, latent["samples"])
        telling = Telling(cls.hidden.unique_id, "Layer Sweep")
        told = Progress(telling, batches(missing(sweep, done), at_once), steps, network)
        conditionings = {_SOURCE: source, _TARGET: target}

        videos = Sampling(model, target, negative, vae, latent, seed, steps, cfg, sampler_name, scheduler)

        def sample(prompts: Sequence[str], transfer: LiveTransfer) -> Tensor:
            positive, repeated = batch([conditionings[prompt] for prompt in prompts], latent, fills_text(model))
            patched = attach(attach(model, Steps(told.step)), transfer, required=True)
            found = videos.run(patched, positive, repeated)
            told.batch_done()
            return found

        latents = run(sweep, sample, folder, at_once, done)
        clips = torch.cat([told.decoded(videos.decode(one), n, len(latents)) for n, one in enumerate(latents.split(1))])
        result = scores.measure(sweep, clips)
        ui = telling.tell(outcome.done(result.verdict()), network)
        title = f"Layer sweep, {mode} · {steps} steps, seed {seed}"
        return io.NodeOutput(
            result.suggested,
            images.as_image(pictures.bars(result, title)),
            images.as_image(pictures.sheet(result, clips, names=_NAMES)),
            result.as_text(),
            json.dumps(result.as_dict(), indent=1),
            ui=ui,
        )


_marks: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def _mark(model: Any) -> str:
    """A name for a MODEL as it is patched: the same as long as ComfyUI hands out the same object."""
    return _marks.setdefault(model, uuid.uuid4().hex)


def _place(sweep: Sweep) -> Path:
    """Where the finished videos of this sweep are kept until ComfyUI starts anew: after an interrupt it goes on."""
    return Path(folder_paths.get_temp_directory()) / "attention_sweeps" / fingerprint(sweep.settings())[:32]


def _digest(value: Any) -> str:
    """SHA-256 of conditionings and latents: tensors by their bytes, all else by its text."""
    digest = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, Tensor):
            digest.update(f"{tuple(part.shape)}{part.dtype}".encode())
            digest.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        elif isinstance(part, dict):
            for name in sorted(part, key=str):
                digest.update(str(name).encode())
                add(part[name])
        elif isinstance(part, list | tuple):
            for one in part:
                add(one)
        else:
            digest.update(repr(part).encode())

    add(value)
    return digest.hexdigest()


def _fitting(model: Any, samples: Tensor) -> int:
    """How many videos, AT_ONCE at most and 2 at least, fit the memory that is free once the model is loaded; with
    guidance, and with the queries, keys, values and outputs that live transfer holds beside the model's own."""
    shape = signature(model)
    tokens = grid(model, samples).tokens
    held = 4 * 2 * tokens * shape.heads * shape.head_dim * comfy.model_management.dtype_size(model.model_dtype())
    one = model.memory_required([2, *samples.shape[1:]]) + held
    to_load = max(0, model.model_size() - model.loaded_size())
    free = comfy.model_management.get_free_memory(model.load_device) - comfy.model_management.minimum_inference_memory()
    return max(2, min(AT_ONCE, int((free - to_load) / max(one, 1))))

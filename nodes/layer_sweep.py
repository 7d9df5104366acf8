"""Layer Sweep: the target sampled once for each layer with the source's maps in it, to find the layers that carry
structure."""

from __future__ import annotations

import hashlib
import math
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import comfy.model_management
import comfy.samplers
import folder_paths
import torch
import torch.nn.functional as F
from comfy_api.latest import io
from torch import Tensor

from nodes import common_ksampler

from ..vdit_core.hosts.comfy import HostError, Outcome, attach, signature
from ..vdit_core.selection import Indices
from ..vdit_core.sweep.folder import SweepFolder, fingerprint
from ..vdit_core.sweep.plan import MODES, Sweep, batches
from ..vdit_core.sweep.run import missing, run
from ..vdit_core.transfer import LiveTransfer, Where
from . import choices, images, report, sockets
from .live_batch import batch

_SOURCE, _TARGET = "source prompt", "target prompt"
_EDGE = 320  # px of a scored video's longer side: enough to see where things are, and 30 videos fit the memory


class LayerSweep(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_LayerSweep",
            display_name="Layer Sweep",
            category=sockets.CATEGORY,
            description="Finds the layers that carry a video's structure: samples the source, the target, and the "
            "target once for each layer with the source's attention maps in that layer, and scores them. It takes "
            "the time of about as many videos as the model has layers.",
            search_aliases=["structure layers", "find layers", "layer ablation", "block sweep"],
            inputs=[
                io.Model.Input("model", tooltip="A Wan2.1 or Wan2.2 model."),
                io.Conditioning.Input("source", tooltip="The source's prompt: its motion and camera are looked for."),
                io.Conditioning.Input("target", tooltip="The target's prompt."),
                io.Conditioning.Input("negative", tooltip="The negative prompt of all videos."),
                io.Vae.Input("vae", tooltip="Decodes the videos, which are scored as pictures."),
                io.Latent.Input("latent", tooltip="One empty latent; every video starts from the same noise."),
                io.Int.Input(
                    "seed", default=0, min=0, max=2**64 - 1, control_after_generate=True, tooltip="Of the noise.",
                ),
                io.Int.Input("steps", default=20, min=1, max=10_000, tooltip="Sampling steps of each video."),
                io.Float.Input("cfg", default=6.0, min=0.0, max=100.0, step=0.1, tooltip="Guidance scale."),
                io.Combo.Input(
                    "sampler_name", options=comfy.samplers.KSampler.SAMPLERS, default="euler", tooltip="As KSampler's.",
                ),
                io.Combo.Input(
                    "scheduler", options=comfy.samplers.KSampler.SCHEDULERS, default="simple", tooltip="As KSampler's.",
                ),
                io.Combo.Input(
                    "mode", options=list(MODES), default="each",
                    tooltip="Which layers each video takes from the source: one (each), all up to it (first), all from "
                    "it on (last), or all but one.",
                ),
                choices.indices("transfer_steps", "in which sampling steps to transfer", advanced=True),
                io.Int.Input(
                    "videos_per_batch", default=0, min=0, max=202, advanced=True,
                    tooltip="How many videos are sampled at once, the source among them. 0: as many as the free memory "
                    "takes. Every batch samples the source again, so few and large ones are faster.",
                ),
            ],
            outputs=[
                sockets.LayerMask.Output(
                    display_name="structure layers",
                    tooltip="The layers that bring the target at least half as near to the source as the best one.",
                ),
                io.Image.Output(display_name="chart", tooltip="How near each video is to the source."),
                io.Image.Output(display_name="videos", tooltip="Frames of the source, the target, and every video."),
                io.String.Output(display_name="scores", tooltip="All scores, as a table."),
            ],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, transfer_steps: str, videos_per_batch: int) -> bool | str:
        if videos_per_batch == 1:
            return "videos_per_batch: a batch of 1 holds no target beside the source; use 0 (what fits), or 2 and more."
        return choices.readable(transfer_steps=transfer_steps)

    @classmethod
    def execute(
        cls,
        model: Any,
        source: list,
        target: list,
        negative: list,
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
        from ..vdit_core.sweep import pictures, scores

        layers = signature(model).layers
        inputs = {"source": source, "target": target, "negative": negative, "latent": latent}
        settings = {"seed": seed, "steps": steps, "cfg": cfg, "sampler": sampler_name, "scheduler": scheduler}
        sweep = Sweep(
            _SOURCE,
            _TARGET,
            layers,
            mode,
            Where(steps=Indices(transfer_steps)),
            settings | {"model": _mark(model)} | {name: _digest(value) for name, value in inputs.items()},
        )
        folder = SweepFolder(_place(sweep), sweep)
        at_once = videos_per_batch or _fitting(model, latent["samples"], layers + 2)
        told = _Progress(cls.hidden.unique_id, len(batches(missing(sweep, folder.load()), at_once)), layers)
        conditionings = {_SOURCE: source, _TARGET: target}

        def sample(prompts: Sequence[str], transfer: LiveTransfer) -> Tensor:
            positive, repeated = batch([conditionings[prompt] for prompt in prompts], latent)
            patched = attach(model, transfer, _refuse_stock)
            (found,) = common_ksampler(patched, seed, steps, cfg, sampler_name, scheduler, positive, negative, repeated)
            told.batch_done()
            return found["samples"]

        latents = run(sweep, sample, folder, at_once)
        clips = torch.cat([_decoded(vae, one) for one in latents.split(1)])
        result = scores.measure(sweep, clips)
        report.show(cls.hidden.unique_id, f"structure layers: {result.suggested}", good=True, layers=layers)
        return io.NodeOutput(
            result.suggested,
            images.as_image(pictures.bars(result)),
            images.as_image(pictures.sheet(result, clips)),
            result.as_text(),
        )


def _refuse_stock(outcome: Outcome) -> None:
    if outcome.stock is not None:
        raise HostError(f"The sweep needs to replace attention maps, but {outcome.stock}.")


class _Progress:
    """Tells the page after each batch how far the sweep is."""

    def __init__(self, node: str | None, total: int, layers: int) -> None:
        self.node, self.total, self.layers = node, total, layers
        self.done, self.start = 0, time.monotonic()

    def batch_done(self) -> None:
        self.done += 1
        left = (time.monotonic() - self.start) / self.done * (self.total - self.done)
        if left:
            text = f"{self.done} of {self.total} batches, about {math.ceil(left / 60)} min left"
            report.show(self.node, text, good=True, layers=self.layers)


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


def _fitting(model: Any, samples: Tensor, most: int) -> int:
    """How many videos can be sampled at once in the memory that is free, guidance included; at least 2."""
    one = model.memory_required([2, *samples.shape[1:]])
    free = comfy.model_management.get_free_memory(model.load_device) - comfy.model_management.minimum_inference_memory()
    return max(2, min(most, int(free / max(one, 1))))


def _decoded(vae: Any, latents: Tensor) -> Tensor:
    """One video as scores take it, (1, 3, frames, height, width) float in [0, 1], its longer side at most _EDGE px."""
    pictures = vae.decode(latents)
    frames = pictures.reshape(-1, *pictures.shape[-3:]).movedim(-1, 1).float().cpu()
    scale = _EDGE / max(frames.shape[-2:])
    if scale < 1:
        frames = F.interpolate(frames, scale_factor=scale, mode="area")
    return frames.transpose(0, 1)[None].clamp(0, 1)

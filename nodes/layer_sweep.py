"""Layer Sweep: the target sampled once for each layer or head group with the source's maps in it, to find those that
carry structure, or those that serve a goal."""

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
from ..vdit_core.call import ModelSignature
from ..vdit_core.head_mask import HeadMask
from ..vdit_core.hosts.comfy import attach, fills_text, grid, signature
from ..vdit_core.hosts.comfy.samplers import with_one_noise
from ..vdit_core.selection import Indices, LayerMask, SelectionError
from ..vdit_core.sweep.checkpoint import SweepFolder, fingerprint
from ..vdit_core.sweep.goal import Goal, GoalError, SearchConfig
from ..vdit_core.sweep.groups import HEAD_MODES, groups
from ..vdit_core.sweep.plan import AT_ONCE, MODES, Sweep, batches
from ..vdit_core.sweep.run import missing, run
from ..vdit_core.sweep.search import RunSweep, layer_groups, search
from ..vdit_core.transfer import LiveTransfer, TransferConfig
from . import categories, choices, images, sampling, sockets
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
            category=categories.LOOK,
            description="Finds the layers or heads that carry a video's structure: samples the source, the target, and "
            "the target once for each of them with the source's attention maps in it, and scores them. With a goal it "
            "searches the set of them that serves it. It takes the time of as many videos as there are layers or "
            "head groups, two more, and one more for each batch.",
            search_aliases=[
                "structure layers", "find layers", "which layers", "motion layers", "camera layers",
                "layer ablation", "block sweep", "head search",
            ],
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
                    "mode", options=[*MODES, *HEAD_MODES], default="each",
                    tooltip="What each video takes from the source. Layers: one (each), all up to it (first), all from "
                    "it on (last), or all but one. Heads of the mask: each head, or the heads of each layer. "
                    "Or one of the head groups (groups).",
                ),
                choices.indices("transfer_steps", "The sampling steps to transfer in", advanced=True),
                io.Int.Input(
                    "videos_per_batch", default=0, min=0, max=202, advanced=True,
                    tooltip="How many videos are sampled at once, the source among them. 0 takes as many as the "
                    "free memory "
                    f"holds, {AT_ONCE} at most. Every batch samples the source again, so large batches are faster. "
                    "Finished batches are kept when the sweep is interrupted.",
                ),
                sockets.mask(
                    "mask", "The heads for the modes 'each head' and 'heads of each layer'. Without one, all heads.",
                ),
                io.String.Input(
                    "head_groups", default="", multiline=True, optional=True, advanced=True,
                    tooltip="The head groups for the mode groups, one a line, as in Head Mask: for example 5@0, 5@3.",
                ),
                io.String.Input(
                    "goal", default="", optional=True,
                    tooltip="What shall be near the source and what shall stay near the plain target, for example "
                    "keep motion, free palette. The node then searches the layers or head groups that serve it. "
                    "Measures are motion, edges, ssim, palette and flip. Empty scores the sweep without a search.",
                ),
                io.Float.Input(
                    "weight", default=0.5, min=0.01, max=0.99, step=0.05, optional=True, advanced=True,
                    tooltip="The weight of what is kept in a goal. The rest is the weight of what is free.",
                ),
                io.Int.Input(
                    "most_groups", default=8, min=1, max=200, optional=True, advanced=True,
                    tooltip="The largest number of layers or head groups that a search takes.",
                ),
            ],
            outputs=[
                sockets.LayerMask.Output(
                    display_name="structure layers",
                    tooltip="The layers that bring the target at least half as near to the source as the best one. "
                    "If heads are swept or a goal is searched, the layers that have any of the found heads.",
                ),
                io.Image.Output(display_name="chart", tooltip="A chart of how near each video is to the source."),
                io.Image.Output(display_name="videos",
                    tooltip="Frames of the source, the target and every video of the sweep."),
                io.String.Output(display_name="scores", tooltip="All scores as a table."),
                io.String.Output(display_name="report", tooltip="All scores and settings as JSON."),
                sockets.HeadMask.Output(
                    display_name="head mask", tooltip="The found heads. Without a goal, those that stand out.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def validate_inputs(
        cls,
        transfer_steps: str,
        videos_per_batch: int,
        sampler_name: str,
        head_groups: str | None = None,
        goal: str | None = None,
    ) -> bool | str:
        if videos_per_batch == 1:
            return "videos_per_batch: a batch of 1 holds no target beside the source; use 0 (what fits), or 2 and more."
        if (wrong := with_one_noise(comfy.samplers.sampler_object(sampler_name))[1]) is not None:
            return f"sampler_name: {sampler_name} cannot be swept: {wrong}. Use euler, or another that adds no noise."
        name = "head_groups"  # a text that another node gives is None here
        try:
            for line in filter(None, map(str.strip, (head_groups or "").splitlines())):
                HeadMask(line)
            name = "goal"
            if goal and goal.strip():
                Goal.parse(goal)
        except (SelectionError, GoalError) as error:
            return f"{name}: {error}"
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
        mask: LayerMask | HeadMask | None = None,
        head_groups: str = "",
        goal: str = "",
        weight: float = 0.5,
        most_groups: int = 8,
    ) -> io.NodeOutput:
        images.need_matplotlib()
        need_video_alone(latent["samples"])
        if latent["samples"].shape[2] < 2:
            raise ValueError(
                "The latent holds a single frame, and the sweep scores motion: use a length of 5 frames or more."
            )
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
            groups(mode, network, mask, head_groups) if mode in HEAD_MODES else (),
        )
        at_once = videos_per_batch or _fitting(model, latent["samples"])
        telling = Telling(cls.hidden.unique_id, "Layer Sweep")
        told = Progress(telling, steps, network)
        conditionings = {_SOURCE: source, _TARGET: target}

        videos = Sampling(model, target, negative, vae, latent, seed, steps, cfg, sampler_name, scheduler)

        def sample(prompts: Sequence[str], transfer: LiveTransfer) -> Tensor:
            positive, repeated = batch([conditionings[prompt] for prompt in prompts], latent, fills_text(model))
            patched = attach(attach(model, Steps(told.step)), transfer, required=True)
            found = videos.run(patched, positive, repeated)
            told.batch_done()
            return found

        def run_sweep(part: Sweep, folder: SweepFolder | None, done: dict[int, Tensor]) -> Tensor:
            told.begin(batches(missing(part, done), at_once))
            return run(part, sample, folder, at_once, done)

        said = f"{mode} · {steps} steps, seed {seed}"
        if goal.strip():
            config = SearchConfig(Goal.parse(goal, weight), most_groups)
            result = _search(sweep, config, network, run_sweep, videos, told, said)
        else:
            result = _score(sweep, run_sweep, videos, told, said)
        verdict, suggested, *shown = result
        heads = suggested if isinstance(suggested, HeadMask) else HeadMask.of_layers(suggested)
        layers = suggested if isinstance(suggested, LayerMask) else _layers(suggested, network)
        return io.NodeOutput(layers, *shown, heads, ui=telling.tell(outcome.done(verdict), network))


#: A verdict, the found mask, and the outputs chart, videos, scores and report.
_Shown = tuple[str, LayerMask | HeadMask, Tensor, Tensor, str, str]


def _score(sweep: Sweep, run_sweep: RunSweep, videos: Sampling, told: Progress, said: str) -> _Shown:
    """A sweep, every row of it scored."""
    from ..vdit_core.sweep import pictures, scores

    folder = SweepFolder(_place(sweep), sweep)
    latents = run_sweep(sweep, folder, folder.load(logging.warning))
    clips = torch.cat([told.decoded(videos.decode(one), n, len(latents)) for n, one in enumerate(latents.split(1))])
    result = scores.measure(sweep, clips)
    return (
        result.verdict(),
        result.suggested,
        images.as_image(pictures.bars(result, f"Layer sweep, {said}")),
        images.as_image(pictures.sheet(result, clips, names=_NAMES)),
        result.as_text(),
        json.dumps(result.as_dict(), indent=1),
    )


def _search(
    sweep: Sweep,
    config: SearchConfig,
    network: ModelSignature,
    run_sweep: RunSweep,
    videos: Sampling,
    told: Progress,
    said: str,
) -> _Shown:
    """A search by goal among the rows of a sweep."""
    from ..vdit_core.sweep import search_pictures
    from ..vdit_core.sweep.goal import Measures
    from ..vdit_core.sweep.pixel_measures import pixel_measures

    plan, measures = layer_groups(sweep, network.heads), Measures(pixel_measures())
    found = search(plan, config, run_sweep, videos.decode, measures, _place(plan), told.round_begins, logging.warning)
    return (
        found.verdict(),
        found.mask,
        images.as_image(search_pictures.chart(found, f"Search: {config.goal} · {said}")),
        images.as_image(search_pictures.sheet(found)),
        found.as_text(),
        json.dumps(found.as_dict(), indent=1),
    )


def _layers(mask: HeadMask, model: ModelSignature) -> LayerMask:
    """The layers that have any head of a mask."""
    return LayerMask.of(list(mask.resolve(model.layers, model.heads, model.kinds)), made_for=model.layers)


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

"""Sparsity Profile: what each layer and head of a model tolerates, measured on a video of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io
from torch import Tensor

from ..vdit_core import outcome
from ..vdit_core.hosts.comfy import kind, signature
from ..vdit_core.selection import Indices
from ..vdit_core.sparse import presets
from ..vdit_core.sparse.ablation import measure
from ..vdit_core.sparse.calibration import Calibration, profile
from ..vdit_core.sparse.config import SparseConfig
from ..vdit_core.sparse.methods import METHODS, TOP_P
from ..vdit_core.sparse.sparse_attention import SparseAttention
from . import categories, images, progress, sockets
from .outcomes import Telling
from .sampling import Sampling
from .sampling import inputs as sampling_inputs

_RUN, _VIDEOS = "one run", "a video per layer"
_STEPS = 6  # of the run at which errors are measured


class SparsityProfile(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_SparsityProfile",
            display_name="Sparsity Profile",
            category=categories.SPEED,
            description="Measures which layers and heads of a model tolerate sparse attention, and how a given part "
            "of the maps is best spent on them. Measure once, save the profile, use it for every video.",
            search_aliases=[
                "sparsity sensitivity", "layer sensitivity", "sparse calibration", "sparse quality",
                "tune sparse attention",
            ],
            inputs=[
                io.Model.Input("model", tooltip="A Wan2.1 or Wan2.2 model."),
                *sampling_inputs(),
                io.Combo.Input(
                    "method", options=[name for name in METHODS if name not in TOP_P], default="block top-k",
                    tooltip="The method that Sparse Attention will use. Each method needs a profile of its own.",
                ),
                io.Float.Input(
                    "keep", display_name="keep (%)", default=30.0, min=1.0, max=100.0, step=5.0,
                    tooltip="The part of the maps that is kept on average, in %. Sparse Attention can ask the same "
                    "profile for another part.",
                ),
                io.Combo.Input(
                    "measure", options=[_RUN, _VIDEOS], default=_RUN,
                    tooltip=f"What is measured. {_RUN} takes the errors of the attention's output from one dense "
                    f"video. {_VIDEOS} also masks each layer alone and compares the videos: about one for each layer.",
                ),
                io.Int.Input(
                    "videos_per_batch", default=0, min=0, max=64, advanced=True,
                    tooltip=f"How many videos are sampled at once with '{_VIDEOS}', the dense one among them. 0 "
                    "takes 4.",
                ),
            ],
            outputs=[
                sockets.SparseProfile.Output(display_name="profile", tooltip="The profile, for Sparse Attention."),
                io.Image.Output(display_name="figure",
                    tooltip="A figure of what each head tolerates, and what it gets."),
                io.String.Output(display_name="report", tooltip="The findings in words and as a table."),
            ],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, videos_per_batch: int) -> bool | str:
        if videos_per_batch == 1:
            return "videos_per_batch: a batch of 1 holds nothing beside the dense video; use 0, or 2 and more."
        return True

    @classmethod
    def execute(
        cls, model: Any, method: str, keep: float, measure: str, videos_per_batch: int, **sampling: Any
    ) -> io.NodeOutput:
        images.need_matplotlib()
        from ..vdit_core.sparse.describe import describe
        from ..vdit_core.sparse.pictures import profile_picture

        videos, telling = Sampling(model, **sampling), Telling(cls.hidden.unique_id, "Sparsity Profile")
        made = signature(model)
        steps = Indices(f"0-{videos.steps - 1}/{max(1, videos.steps // _STEPS)}")
        observer = Calibration(method, steps, on_call=progress.stop_if_asked)
        videos.sample(observer)
        local, found = observer.found, None
        if measure == _VIDEOS:
            found = _videos(videos, made, method, keep / 100, videos_per_batch or 4, telling)
        names = ("seed", "steps", "cfg", "sampler_name", "scheduler")
        measured = {"grid": str(observer.grid)} | {name: sampling[name] for name in names}
        result = profile(local, keep / 100, None if found is None else found.weights(local), measured)
        layers = result.densities().mean(1)
        most, least = int(layers.argmax()), int(layers.argmin())
        said = f"layer {most} gets {layers[most]:.0%}, layer {least} {layers[least]:.0%}"
        ui = telling.tell(outcome.done(said), made)
        text = describe(result, found, presets.matching(made, kind(model)))
        shown = images.as_image(profile_picture(result, local, found))
        return io.NodeOutput(result, shown, text, ui=ui)


def _videos(videos: Sampling, model: Any, method: str, level: float, at_once: int, telling: Telling) -> Any:
    """The ablation of each layer in the video; each batch samples the dense video again."""
    done, total = 0, model.layers + 5

    def sample(densities: Sequence[np.ndarray]) -> Tensor:
        nonlocal done
        settings = SparseConfig(method, dense_first=0.0, minimum_tokens=0, if_slower="sparse")
        clips: list[Tensor] = []
        for start in range(1, len(densities), at_once - 1):
            tables = [densities[0], *densities[start : start + at_once - 1]]
            editor = SparseAttention(settings, [torch.from_numpy(table) for table in tables])
            latents = videos.sample(editor, len(tables))
            clips += [videos.decode(one) for one in latents[0 if not clips else 1 :].split(1)]
            done += len(tables) - 1
            telling.show(outcome.idle(f"{done} of {total} videos"), model)
        return torch.cat(clips)

    return measure(model, level, sample)

"""Sparse Report: what a density costs in quality and saves in time, on one video."""

from __future__ import annotations

import math
import re
from typing import Any

from comfy_api.latest import io

from ..vdit_core import outcome
from ..vdit_core.head_mask import HeadMask
from ..vdit_core.hosts.comfy import kind, signature
from ..vdit_core.outcome import idle
from ..vdit_core.selection import LayerMask
from ..vdit_core.sparse import presets
from ..vdit_core.sparse.density_profile import DensityProfile
from ..vdit_core.sparse.profile import SparseProfile
from ..vdit_core.sparse.quality import compare
from . import categories, images, sockets, sparse
from .outcomes import Telling
from .sampling import Sampling
from .sampling import inputs as sampling_inputs

_LABEL = 168  # px that a video's label needs


class SparseReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_SparseReport",
            display_name="Sparse Report",
            category=categories.SPEED,
            description="Samples one video dense and at several densities, with and without a profile, from the same "
            "seed, and compares them: quality, seconds, and the videos side by side.",
            search_aliases=[
                "sparse quality", "speed quality", "compare sparse", "speed test", "render time", "quality loss",
                "benchmark",
            ],
            inputs=[
                io.Model.Input("model", tooltip="A Wan2.1 or Wan2.2 model."),
                *sampling_inputs(),
                io.String.Input(
                    "keeps", display_name="keeps (%)", default="50, 30, 20",
                    tooltip="The parts of the maps to try, in %. The videos of the first one are shown side by side.",
                ),
                *sparse.where_inputs(),
                sockets.SparseProfile.Input(
                    "profile", optional=True,
                    tooltip="A profile, which is compared with the same density spent alike on all heads."
                ),
                sparse.preset_input(),
            ],
            outputs=[
                io.Image.Output(display_name="side by side",
                    tooltip="The dense and the sparse videos, frame by frame."),
                io.Image.Output(display_name="chart", tooltip="A chart of quality over density and over time."),
                io.String.Output(display_name="table", tooltip="All figures as a table."),
                io.String.Output(display_name="figures", tooltip="All figures as JSON."),
            ],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, keeps: str, dense_layers: str) -> bool | str:
        try:
            _shares(keeps)
        except ValueError as error:
            return f"keeps: {error}"
        return sparse.readable(dense_layers)

    @classmethod
    def execute(
        cls,
        model: Any,
        keeps: str,
        method: str,
        dense_layers: str,
        dense_first: float,
        dense_last: float,
        first_frame: bool,
        minimum_tokens: int,
        if_slower: str,
        profile: SparseProfile | DensityProfile | None = None,
        dense_mask: LayerMask | HeadMask | None = None,
        preset: str = presets.AUTO,
        **sampling: Any,
    ) -> io.NodeOutput:
        images.need_matplotlib()
        from ..vdit_core.reporting.labelled import side_by_side
        from ..vdit_core.sparse.pictures import pareto

        made = signature(model)
        if profile is None:
            profile = presets.chosen(preset, method, made, kind(model))
        else:
            profile.check(made, method)
        videos, shares = Sampling(model, **sampling), _shares(keeps)
        telling = Telling(cls.hidden.unique_id, "Sparse Report")
        total, done = 1 + len(shares) * (1 if profile is None else 2), 0

        def video_done() -> None:
            nonlocal done
            done += 1
            telling.show(idle(f"{done} of {total} videos"), made)

        settings = sparse.settings(
            method,
            100,
            dense_layers,
            dense_first,
            dense_last,
            first_frame,
            minimum_tokens,
            if_slower,
            dense_mask=dense_mask,
            preset=presets.NONE,  # one side of the comparison is spent alike
        )
        found = compare(videos.sample, videos.decode, settings, shares, profile, video_done)
        shown = [video.label for video in found.videos if video.density == shares[0]]
        scale = math.ceil(_LABEL / found.clips["dense"].shape[-1])
        frames = side_by_side({name: found.clips[name] for name in ("dense", *shown)}, scale)
        best = min(found.videos, key=lambda video: video.seconds)
        text = f"{best.label}: {found.seconds / best.seconds:.1f}x as fast as dense, {best.quality.psnr:.0f} dB"
        ui = telling.tell(outcome.done(text).but(*found.why_dense()), made)
        pictures = images.as_image(*frames), images.as_image(pareto(found))
        return io.NodeOutput(*pictures, found.as_text(), found.as_json(), ui=ui)


def _shares(text: str) -> list[float]:
    """Percentages, joined by commas, as shares.

    Raises:
        ValueError: naming what is no percentage.
    """
    found = []
    for part in text.split(","):
        if not re.fullmatch(r"\d+(\.\d+)?", part.strip(), re.ASCII) or not 0 < float(part) <= 100:
            raise ValueError(f"{part.strip()!r} is not a percentage above 0, up to 100. Write for example: 50, 30, 20.")
        found.append(float(part) / 100)
    return list(dict.fromkeys(found))

"""Speed and quality side by side: one video dense, and sparse at several densities, with and without a profile."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from .. import metrics
from ..reporting.tables import markdown
from .config import SparseConfig
from .density_profile import DensityProfile
from .profile import SparseProfile
from .sparse_attention import SparseAttention

#: A host's sampler: an editor, or None for the stock model -> latents of one video, always from the same noise.
SampleOne = Callable[[SparseAttention | None], Tensor]


@dataclass(frozen=True)
class SparseVideo:
    """A sparse video.

    density: what was asked for. profiled: whether a profile spent it.
    computed: the share of all maps of the run that was computed.
    quality: against the dense video. seconds: of sampling. did: what the run says of itself.
    why_dense: why calls that were to be sparse were not, or None.
    """

    density: float
    profiled: bool
    computed: float
    quality: metrics.Quality
    seconds: float
    did: str
    why_dense: str | None = None

    @property
    def label(self) -> str:
        return f"keep {self.density:.0%}, {'profile' if self.profiled else 'uniform'}"


@dataclass(frozen=True, eq=False)
class Comparison:
    """The dense video's seconds of sampling, the sparse videos, and all clips by label, the dense one first."""

    method: str
    seconds: float
    videos: tuple[SparseVideo, ...]
    clips: dict[str, Tensor]

    def gains(self) -> dict[float, float]:
        """By density, how many dB the profile is above the uniform setting."""
        by = {(video.density, video.profiled): video.quality.psnr for video in self.videos}
        return {
            density: by[density, True] - psnr
            for (density, profiled), psnr in by.items()
            if not profiled and (density, True) in by
        }

    def why_dense(self) -> list[str]:
        """Why videos computed whole maps that they were to leave parts of: their figures say little then."""
        return list(dict.fromkeys(video.why_dense for video in self.videos if video.why_dense))

    def as_json(self) -> str:
        found: dict[str, Any] = {"method": self.method, "dense_seconds": round(self.seconds, 2), "videos": []}
        for video in self.videos:
            numbers = {name: round(getattr(video, name), 4) for name in ("density", "computed", "seconds")}
            found["videos"].append(numbers | video.quality.as_json() | {"profiled": video.profiled, "did": video.did})
        return json.dumps(found, indent=1) + "\n"

    def as_text(self) -> str:
        """A table (Markdown)."""
        rows = [["100%", "(dense)", "100%", "", "", "", f"{self.seconds:.1f}"]]
        for one in self.videos:
            like = one.quality
            figures = [f"{one.computed:.0%}", f"{like.psnr:.1f}", f"{like.ssim:.3f}", f"{like.flip:.3f}"]
            spent = "by the profile" if one.profiled else "alike"
            rows.append([f"{one.density:.0%}", spent, *figures, f"{one.seconds:.1f}"])
        return markdown(("keep", "spent", "computed", "PSNR dB", "SSIM", "FLIP", "seconds"), rows, aligned=True)


def compare(
    sample: SampleOne,
    decode: Callable[[Tensor], Tensor],
    config: SparseConfig,
    densities: Sequence[float],
    profile: SparseProfile | DensityProfile | None = None,
    on_video: Callable[[], None] | None = None,
) -> Comparison:
    """Sample the dense video, then one for each density without the profile, and one with it if there is one.

    Args:
        decode: latents of a video -> its clip, float in [0, 1], (1, 3, frames, height, width).
        config: of all videos but for density and profile.
        on_video: called after each video, to show progress or to raise an interrupt.
    """

    def timed(editor: SparseAttention | None) -> tuple[Tensor, float]:
        start = time.perf_counter()
        latents = sample(editor).float().cpu()  # waits for the device
        taken = time.perf_counter() - start
        clip = decode(latents)
        if on_video:
            on_video()
        return clip, taken

    dense, seconds = timed(None)
    videos, clips = [], {"dense": dense[0]}
    for density in densities:
        for one in (None, profile) if profile is not None else (None,):
            editor = SparseAttention(replace(config, density=density, profile=one))
            clip, taken = timed(editor)
            did, like = editor.report, metrics.quality(dense, clip)
            video = SparseVideo(density, one is not None, did.overall, like, taken, str(did), did.why_dense)
            videos.append(video)
            clips[video.label] = clip[0]
    return Comparison(config.method, seconds, tuple(videos), clips)

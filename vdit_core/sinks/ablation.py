"""Whether sinks matter: a video without them, each way of taking them away beside the same done to random others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from torch import Tensor

from .. import metrics
from ..call import Chain, Interceptor
from .control import SinkControl, Targets
from .detect import Findings, detect
from .observer import SinkObserver

#: A host's sampler: an editor, or None for the stock model -> the clip of one video, always from the same noise: float
#: in [0, 1], (1, 3, frames, height, width).
SampleClip = Callable[[Interceptor | None], Tensor]


@dataclass(frozen=True)
class Ablation:
    """One way, on the sinks and on random others of the same number: how near the video is to the untouched one. moved:
    tokens that became sinks when the others were taken away."""

    action: str
    quality: metrics.Quality
    controls: tuple[metrics.Quality, ...]
    moved: tuple[int, ...] = ()

    def control(self, name: str) -> float:
        """The mean of a figure over the controls."""
        return fmean(getattr(one, name) for one in self.controls)

    @property
    def matters(self) -> bool:
        """Whether the sinks' absence changes the video clearly more than that of random others: by 3 dB and more."""
        return self.quality.psnr < self.control("psnr") - 3

    def as_json(self) -> dict[str, Any]:
        return {
            "action": self.action,
            "sinks": self.quality.as_json(),
            "random others": [one.as_json() for one in self.controls],
            "moved": list(self.moved),
            "matters": self.matters,
        }


def run(
    sample: SampleClip,
    targets: Targets,
    actions: Sequence[str],
    controls: int = 2,
    base: Interceptor | None = None,
    on_video: Callable[[], None] | None = None,
) -> tuple[list[Ablation], dict[str, Tensor]]:
    """Sample the video as it is, then for each action without the sinks and `controls` times without random others.

    Args:
        base: what is on the model in all videos (planted sinks, for one).

    Returns:
        The ablations and all clips by label, the untouched one first.
    """

    def clip(*editors: Interceptor) -> Tensor:
        chain = [one for one in (base, *editors) if one is not None]
        found = sample(Chain(chain) if chain else None)
        if on_video:
            on_video()
        return found

    plain = clip()
    clips, found = {"untouched": plain[0]}, []
    for action in actions:
        observer = SinkObserver() if action == "mask" else None
        without = clip(SinkControl(targets, action), *([observer] if observer else []))
        clips[f"{action}: the sinks"] = without[0]
        others = []
        for seed in range(controls):
            random = targets.random_tokens(seed) if action in ("mask", "cap") else targets.random_heads(seed)
            others.append(clip(SinkControl(random, action)))
            clips[f"{action}: random {seed + 1}"] = others[-1][0]
        moved = _moved(detect(observer.record), targets) if observer else ()
        near, *controls_near = (metrics.quality(plain, one) for one in (without, *others))
        found.append(Ablation(action, near, tuple(controls_near), moved))
    return found, clips


def _moved(findings: Findings, targets: Targets) -> tuple[int, ...]:
    """Sinks of the changed heads that were none before."""
    found = {
        sink.token
        for sink in findings.sinks
        if sink.token not in targets.tokens.get((sink.layer, sink.head), (sink.token,))
    }
    return tuple(sorted(found))


HEADS = ("what is done", "to the sinks: PSNR dB", "SSIM", "to random others: PSNR dB", "SSIM", "do they matter?",
         "moved to")  # fmt: skip


def table(found: Sequence[Ablation]) -> list[list[str]]:
    """The cells of a table under `HEADS`, a row for each."""
    rows = []
    for one in found:
        moved = (", ".join(map(str, one.moved[:6])) or "nowhere") if one.action == "mask" else ""
        quality = [_db(one.quality.psnr), f"{one.quality.ssim:.3f}", _db(one.control("psnr")),
                   f"{one.control('ssim'):.3f}"]  # fmt: skip
        rows.append([one.action, *quality, "yes" if one.matters else "no", moved])
    return rows


def _db(psnr: float) -> str:
    return "unchanged" if psnr >= metrics.MAX_PSNR else f"{psnr:.1f}"

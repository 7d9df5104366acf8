"""Whether sinks matter: a video without them, each way of taking them away beside the same done to random others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .. import metrics
from ..call import Chain, Interceptor
from .control import SinkControl, Targets
from .detect import Findings, detect
from .observe import SinkObserver

#: A host's sampler: an editor, or None for the stock model -> the clip of one video, always from the same noise: float
#: in [0, 1], (1, 3, frames, height, width).
SampleClip = Callable[[Interceptor | None], Tensor]

_MOST_PSNR = 100.0  # equal clips have no finite one


@dataclass(frozen=True)
class Trial:
    """One way, on the sinks and on random others of the same number: psnr (dB) and ssim to the untouched video, the
    means over the controls. moved: tokens that became sinks when the others were taken away."""

    action: str
    psnr: float
    ssim: float
    control_psnr: float
    control_ssim: float
    moved: tuple[int, ...] = ()

    @property
    def matters(self) -> bool:
        """Whether the sinks' absence changes the video clearly more than that of random others: by 3 dB and more."""
        return self.psnr < self.control_psnr - 3

    def as_json(self) -> dict[str, Any]:
        numbers = {name: round(value, 4) for name, value in vars(self).items() if isinstance(value, float)}
        return {"action": self.action, **numbers, "moved": list(self.moved), "matters": self.matters}


def run(
    sample: SampleClip,
    targets: Targets,
    actions: Sequence[str],
    controls: int = 2,
    base: Interceptor | None = None,
    on_video: Callable[[], None] | None = None,
) -> tuple[list[Trial], dict[str, Tensor]]:
    """Sample the video as it is, then for each action without the sinks and `controls` times without random others.

    Args:
        base: what is on the model in all videos (planted sinks, for one).

    Returns:
        The trials and all clips by label, the untouched one first.
    """

    def clip(*editors: Interceptor) -> Tensor:
        chain = [one for one in (base, *editors) if one is not None]
        found = sample(Chain(chain) if chain else None)
        if on_video:
            on_video()
        return found

    plain = clip()
    clips, trials = {"untouched": plain[0]}, []
    for action in actions:
        observer = SinkObserver() if action == "mask" else None
        without = clip(SinkControl(targets, action), *([observer] if observer else []))
        clips[f"{action}: the sinks"] = without[0]
        others = []
        for seed in range(controls):
            random = targets.random_tokens(seed) if action in ("mask", "cap") else targets.random_heads(seed)
            others.append(clip(SinkControl(random, action)))
            clips[f"{action}: random {seed + 1}"] = others[-1][0]
        psnrs, ssims = ([_score(of, plain, one) for one in others] for of in (metrics.psnr, metrics.ssim))
        moved = _moved(detect(observer.record), targets) if observer else ()
        means = sum(psnrs) / len(psnrs), sum(ssims) / len(ssims)
        trials.append(
            Trial(action, _score(metrics.psnr, plain, without), _score(metrics.ssim, plain, without), *means, moved)
        )
    return trials, clips


def _score(of: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> float:
    return min(float(of(a, b)), _MOST_PSNR)


def _moved(findings: Findings, targets: Targets) -> tuple[int, ...]:
    """Sinks of the changed heads that were none before."""
    found = {
        sink.token
        for sink in findings.sinks
        if sink.token not in targets.tokens.get((sink.layer, sink.head), (sink.token,))
    }
    return tuple(sorted(found))


def as_text(trials: Sequence[Trial]) -> str:
    """A table (Markdown)."""
    heads = ["what is done", "to the sinks: PSNR dB", "SSIM", "to random others: PSNR dB", "SSIM", "do they matter?"]
    lines = ["| " + " | ".join([*heads, "moved to"]) + " |", "|---" * (len(heads) + 1) + "|"]
    for one in trials:
        moved = (", ".join(map(str, one.moved[:6])) or "nowhere") if one.action == "mask" else ""
        lines.append(
            f"| {one.action} | {one.psnr:.1f} | {one.ssim:.3f} | {one.control_psnr:.1f} | {one.control_ssim:.3f} | "
            f"{'yes' if one.matters else 'no'} | {moved} |"
        )
    return "\n".join(lines)

"""Samples a sweep through a host, batch by batch; what a folder holds already is not sampled again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..transfer import LiveTransfer
from .checkpoint import SweepFolder
from .plan import AT_ONCE, Sweep, batches

#: A host's sampler: prompts of a batch (the source's first, all from the same noise) and the transfer to attach
#: -> latents, one per prompt.
Sample = Callable[[Sequence[str], LiveTransfer], Tensor]


def run(
    sweep: Sweep,
    sample: Sample,
    folder: SweepFolder | None = None,
    rows_per_batch: int = AT_ONCE,
    done: dict[int, Tensor] | None = None,
) -> Tensor:
    """The latents of all videos of a sweep, on the CPU, in the order of `Sweep.videos`.

    Args:
        folder: where finished videos are kept.
        rows_per_batch: see `plan.batches`.
        done: what `folder.load` gave: these videos are not sampled again, so that an interrupted sweep goes on.

    Raises:
        ValueError: if the sampler gives another number of videos than prompts.
    """
    done = dict(done or {})
    for batch in batches(missing(sweep, done), rows_per_batch):
        done |= keep(sweep, batch, sample_batch(sweep, batch, sample), done, folder)
    return together(sweep, done)


def missing(sweep: Sweep, done: dict[int, Tensor]) -> list[int]:
    """The numbers of the videos that are not there yet."""
    return [n for n in range(len(sweep.videos())) if n not in done]


def sample_batch(sweep: Sweep, batch: Sequence[int], sample: Sample) -> Tensor:
    """The latents of one batch, on the CPU."""
    videos = sweep.videos()
    latents = sample([videos[n].prompt for n in batch], sweep.transfer(batch))
    if len(latents) != len(batch):
        raise ValueError(f"The sampler gave {len(latents)} videos for {len(batch)} prompts.")
    return latents.detach().cpu()


def keep(
    sweep: Sweep, batch: Sequence[int], latents: Tensor, done: dict[int, Tensor], folder: SweepFolder | None
) -> dict[int, Tensor]:
    """The new videos of a batch, written to the folder; every batch has a source, the first one's stays.

    Raises:
        ValueError: if they are of another shape than the finished ones.
    """
    was = next((video.shape for video in done.values()), latents[0].shape)
    if latents[0].shape != was:
        raise ValueError(
            f"The finished videos' latents are {tuple(was)}, the sampler gives {tuple(latents[0].shape)}. "
            "Choose another folder, or remove this one."
        )
    new = {n: video for n, video in zip(batch, latents, strict=True) if n not in done}
    if folder:
        for n, video in new.items():
            folder.save(n, video)
    return new


def together(sweep: Sweep, done: dict[int, Tensor]) -> Tensor:
    """All latents of a sweep, in the order of `Sweep.videos`."""
    return torch.stack([done[n] for n in range(len(sweep.videos()))])

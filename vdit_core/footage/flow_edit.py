"""Editing a clip without inverting it: FlowEdit (Kulikov et al., arXiv 2412.08629, algorithm 1).

At noise level sigma, with fresh noise n, the footage is noised and the edit is moved by the same noise:

    source = noised(footage, sigma, n)
    target = source + (edit - footage)

The edit follows the difference of the two velocities, d edit / d sigma = v(target) - v(source), each under its own
prompt. Where a model predicts x0 = z - sigma v, that is an ordinary sampler's equation whose denoised prediction is

    denoised(edit, sigma) = footage + x0(target) - x0(source)

so any sampler that adds no noise of its own can follow it, and a mask can hold parts at the footage. What the pack adds
is that source and targets are rows of one batch: a live transfer gives the targets the footage's attention maps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import EditConfig

#: (rows, sigma) -> the guided x0 of each row: the source's prompt for row 0, the targets' for the others.
Predict = Callable[[Tensor, float], Tensor]
#: (sigma, noise, latent) -> the latent at that level.
Noised = Callable[[float, Tensor, Tensor], Tensor]


def straight(sigma: float, noise: Tensor, latent: Tensor) -> Tensor:
    """The straight line between latent and noise that flow matching follows; see `Noised`."""
    return sigma * noise + (1 - sigma) * latent


class FlowEdit:
    """What the samplers of one edit follow.

    Args:
        footage: its latents as the model sees them, (1, channels, frames, height, width).
        noised: how this model adds noise. seed: of the noise, which depends on it and on the level alone: a second run
            of other prompts meets the same noise, so what was recorded of one serves the other. last: the level of the
            step that ends without noise, None if none does.
    """

    def __init__(
        self, footage: Tensor, config: EditConfig, seed: int, noised: Noised = straight, last: float | None = None
    ) -> None:
        self.footage, self.config, self.seed, self.noised = footage, config, seed, noised
        self.finishing = last if last is not None and last <= config.finish else None
        self.evaluations = 0

    def denoised(self, edits: Tensor, sigma: float, predict: Predict) -> Tensor:
        """What a sampler is to take as the denoised prediction.

        Args:
            edits: (targets, channels, frames, height, width), one for each target prompt.

        Returns:
            The same shape. The model is called `draws` times with 1 + targets rows.
        """
        total = torch.zeros_like(edits)
        for draw in range(self.config.draws):
            noise = self.noise(sigma, draw)
            source = self.noised(sigma, noise, self.footage)
            if sigma == self.finishing:
                total += predict(torch.cat([source, self.noised(sigma, noise, edits)]), sigma)[1:]
            else:
                found = predict(torch.cat([source, source + (edits - self.footage)]), sigma)
                total += self.footage + (found[1:] - found[:1])
            self.evaluations += 1
        return total / self.config.draws

    def held(self, edits: Tensor) -> Tensor:
        """Finished edits, put back to the footage where they hardly left it: an automatic mask from the sum of all
        differences of the two velocities, which is how far an edit moved. One latent around each kept place is kept.
        """
        if not self.config.hold:
            return edits
        moved = (edits - self.footage).abs().mean(1, keepdim=True)
        kept = (moved > self.config.hold * moved.amax((2, 3, 4), keepdim=True)).to(edits.dtype)
        around = F.max_pool3d(kept, (1, 3, 3), 1, (0, 1, 1))
        return torch.where(around > 0, edits, self.footage)

    def noise(self, sigma: float, draw: int) -> Tensor:
        """Of the footage's shape; drawn on the CPU, so that every device gets the same. Every second draw is the one
        before with its sign changed: what is odd in the noise cancels."""
        key = hashlib.sha256(f"{self.seed} {sigma:.5f} {draw // 2}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "little") >> 1)
        drawn = torch.randn(self.footage.shape, generator=generator)
        return (-drawn if draw % 2 else drawn).to(self.footage)

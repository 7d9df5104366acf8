"""Editing a clip with a Wan pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ...call import Interceptor
from ...footage.config import EditConfig, FootageError, first_step
from ...footage.flow_edit import FlowEdit
from ...transfer import LiveTransfer, TransferConfig, TransferReport
from .attach import attach

#: (rows, sigma) -> the guided velocity of each row.
Velocity = Callable[[Tensor, float], Tensor]


def velocity(pipe: Any, prompts: Tensor, negative: Tensor, scales: Sequence[float]) -> tuple[Velocity, tuple[str, ...]]:
    """How a Wan pipeline's rows move, each under its own prompt and scale of guidance, and the branches that computes.

    Args:
        prompts: embedded, (rows, tokens, width). negative: (1, tokens, width). scales: one for each row.
    """
    transformer, trained = pipe.transformer, pipe.scheduler.config.num_train_timesteps
    branches = ("cond",) if all(scale == 1 for scale in scales) else ("cond", "uncond")
    pipe._guidance_scale = scales[-1]  # what a run of the pipeline itself leaves there

    def of(rows: Tensor, sigma: float) -> Tensor:
        timestep = torch.full((len(rows),), sigma * trained, device=rows.device)
        found = []
        for branch in branches:
            context = prompts if branch == "cond" else negative.expand(len(rows), -1, -1)
            with transformer.cache_context(branch):
                found.append(transformer(rows.to(transformer.dtype), timestep, context, return_dict=False)[0])
        if len(found) == 1:
            return found[0].to(rows)
        scale = torch.tensor(scales).view(-1, 1, 1, 1, 1).to(rows)
        return torch.lerp(found[1].to(rows), found[0].to(rows), scale)

    return of, branches


def begin_at(pipe: Any, steps: int, change: float, device: torch.device) -> list[float]:
    """Set a pipeline's schedule to the last `change` of so many steps; its noise levels, and 0.

    Raises:
        FootageError: if no step is left.
    """
    scheduler = pipe.scheduler
    scheduler.set_timesteps(steps, device=device)
    shift = scheduler.config.get("flow_shift", scheduler.config.get("shift", 1.0))
    levels = scheduler.sigmas.tolist()
    first = first_step(levels[:-1], shift * change / (1 + (shift - 1) * change))
    if first == len(levels) - 1:
        raise FootageError(f"change {change:g} leaves none of {steps} steps: raise one of the two.")
    scheduler.timesteps, scheduler.sigmas = scheduler.timesteps[first:], scheduler.sigmas[first:]
    return levels[first:]


@torch.no_grad()
def edit_footage(
    pipe: Any,
    footage: Tensor,
    source: Tensor,
    targets: Sequence[Tensor],
    negative: Tensor,
    config: EditConfig | None = None,
    where: TransferConfig | None = None,
    steps: int = 50,
    seed: int = 0,
    more: Sequence[Interceptor] = (),
    on_step: Callable[[], None] | None = None,
) -> tuple[Tensor, TransferReport]:
    """Edit a clip in Euler steps at the levels of the pipeline's scheduler; see `footage.flow_edit`.

    Args:
        pipe: a `WanPipeline` of text-to-video. footage: latents as its transformer sees them, (1, channels, frames,
            height, width). source, targets, negative: embedded prompts, (1, tokens, width) each, of one length.
        where: which maps the targets take from the footage. more: further interceptors, outside of that.
        steps: of the whole schedule, of which `config.change` is used.

    Returns:
        The edits, (targets, channels, frames, height, width), and what the transfer did.

    Raises:
        FootageError: if no step of the schedule is left. As `attach` otherwise.
    """
    config = config or EditConfig()
    levels = begin_at(pipe, steps, config.change, footage.device)
    moves, branches = velocity(pipe, torch.cat([source, *targets]), negative, config.scales(len(targets)))
    flow, transfer = FlowEdit(footage, config, seed, last=levels[-2]), LiveTransfer(where)
    edits = footage.expand(len(targets), *footage.shape[1:]).clone()
    with attach(pipe, *more, transfer, branches=branches):
        for sigma, following in pairwise(levels):
            denoised = flow.denoised(edits, sigma, lambda rows, sigma: rows - sigma * moves(rows, sigma))
            edits = edits + (edits - denoised) / sigma * (following - sigma)
            if on_step:
                on_step()
    return flow.held(edits), transfer.report

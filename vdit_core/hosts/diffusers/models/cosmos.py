"""Cosmos Predict2 in diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ....call import Row, Run, TokenGrid
from .family import Family, patches


class Cosmos(Family):
    """Cosmos Predict2: self-attention of its own. Its pipelines say neither which prompt they compute (the negative one
    comes second) nor at which of the scheduler's timesteps they are."""

    transformers = ("CosmosTransformer3DModel",)
    prompts_together = False

    def kind_of(self, config: Any) -> str:
        return f"cosmos predict2 {config.in_channels} -> {config.out_channels}"

    def grid_of(self, model: Any, inputs: Mapping[str, Any]) -> TokenGrid:
        return patches(self.size_of(inputs), model.config.patch_size)

    def rows(self, context: str | None, count: int, run: Run, calls: int) -> tuple[Row, ...]:
        branch = run.branches[calls % len(run.branches)]
        return tuple(Row(branch, i) for i in range(count))

    def step(self, pipe: Any, timestep: Tensor) -> int:
        return pipe.scheduler.step_index or 0

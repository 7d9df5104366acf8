"""What the pack must know of a model family in diffusers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor

from ....call import Row, Run, TokenGrid
from .. import dispatch
from ..session import nearest

if TYPE_CHECKING:
    from ..session import Session


class Family:
    """A model family; its file has one subclass, and `models.FAMILIES` one of each.

    transformers: names of the classes that it serves. blocks: each kind, and what the model calls its list of blocks,
    in the order of the forward pass. attention: a block's self-attention. text: where the prompt's tokens stand if they
    attend together with the grid's, else "". prompts_together: whether a forward pass computes all prompts, or one that
    its `cache_context` names.
    """

    transformers: ClassVar[tuple[str, ...]]
    blocks: ClassVar[tuple[tuple[str, str], ...]] = (("", "transformer_blocks"),)
    attention: ClassVar[str] = "attn1"
    text: ClassVar[Literal["", "before", "behind"]] = ""
    prompts_together: ClassVar[bool] = True

    def kind_of(self, config: Any) -> str:
        """What tells networks of one signature apart, in words that all hosts share."""
        raise NotImplementedError

    def grid_of(self, model: Any, inputs: Mapping[str, Any]) -> TokenGrid:
        """How the tokens of a forward pass lie, without a prompt's. inputs: of the transformer, by name."""
        raise NotImplementedError

    def heads(self, config: Any) -> tuple[int, int]:
        """How many heads a layer has, and how wide each is."""
        return config.num_attention_heads, config.attention_head_dim

    def size_of(self, inputs: Mapping[str, Any]) -> tuple[int, int, int]:
        """Frames, height and width of the latents."""
        frames, height, width = inputs["hidden_states"].shape[-3:]
        return frames, height, width

    def noise_of(self, model: Any, inputs: Mapping[str, Any]) -> Tensor:
        """What the first forward pass is given of noise, (rows, ...)."""
        hidden: Tensor = inputs["hidden_states"]
        return hidden

    def vae_scales(self, pipe: Any) -> tuple[int, int] | None:
        """How much smaller latents are than the video, in space and in time; None if the pipeline does not tell."""
        for names in (("vae_scale_factor_spatial", "vae_scale_factor_temporal"),
                      ("vae_spatial_scale_factor", "vae_temporal_scale_factor"),
                      ("vae_spatial_compression_ratio", "vae_temporal_compression_ratio")):  # fmt: skip
            if all(hasattr(pipe, name) for name in names):
                spatial, temporal = (getattr(pipe, name) for name in names)
                return spatial, temporal
        return None

    def cfg(self, pipe: Any) -> float | None:
        """The guidance scale."""
        return float(pipe.guidance_scale) if len(self.branches(pipe)) > 1 else 1.0

    def branches(self, pipe: Any) -> tuple[str, ...]:
        """The prompts that the run will compute, as far as the pipeline tells."""
        return ("cond", "uncond") if pipe.do_classifier_free_guidance else ("cond",)

    def samples(self, rows: int, branches: tuple[str, ...]) -> int:
        """How many videos a forward pass of so many rows computes."""
        return rows // len(branches) if self.prompts_together else rows

    def rows(self, context: str | None, count: int, run: Run, calls: int) -> tuple[Row, ...]:
        """What the rows of a forward pass are. context: the pipeline's `cache_context`. calls: how many came before.

        Raises:
            RuntimeError: if the context is needed and is missing.
        """
        if not self.prompts_together:
            if context is None:
                raise RuntimeError('Call the transformer inside `transformer.cache_context("cond")` (or "uncond").')
            return tuple(Row(context.removeprefix("pred_"), i) for i in range(count))
        branches = ("uncond", "cond") if count > run.samples else ("cond",)
        return tuple(Row(branch, i) for branch in branches for i in range(run.samples))

    def levels(self, pipe: Any) -> list[float]:
        """The noise level of each of the scheduler's timesteps, falling."""
        levels: list[float] = pipe.scheduler.sigmas[: len(pipe.scheduler.timesteps)].tolist()
        return levels

    def step(self, pipe: Any, timestep: Tensor) -> int:
        """Which of the scheduler's timesteps a forward pass is at."""
        return nearest(pipe.scheduler.timesteps, timestep)

    def attentions(self, model: Any) -> Iterator[Any]:
        """The self-attention of each layer, in their order."""
        for _, name in self.blocks:
            yield from (getattr(block, self.attention) for block in getattr(model, name))

    def intercept(self, layer: int, attention: Any, session: Session) -> Callable[[], None]:
        """Send a layer's self-attention through a session's chain; returns what undoes it."""
        return dispatch.intercept(layer, attention, session)


def patches(size: tuple[int, int, int], patch: tuple[int, int, int]) -> TokenGrid:
    """The grid of latents of a size."""
    return TokenGrid(*(n // p for n, p in zip(size, patch, strict=True)))

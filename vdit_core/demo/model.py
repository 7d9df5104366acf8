"""The demo model: the tiny Wan2.1 that ships with the pack, as a stock diffusers `WanPipeline`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from diffusers.utils import logging
from torch import Tensor

from ..call import TokenGrid
from ..tiny_wan.files import FRAMES, GUIDANCE, SHIFT, SIZE, STEPS, TEXT_ENCODER, TRANSFORMER, VAE, WEIGHTS
from ..tiny_wan.text import TextEncoder
from . import single_pass


class UniformFlowScheduler(FlowMatchEulerDiscreteScheduler):
    """Euler steps at noise levels equally spaced before the shift, each the next of a thousand: ComfyUI's `euler` with
    scheduler `simple`, to the last bit of a level."""

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: str | torch.device | None = None, **_: Any
    ) -> None:
        count = int(num_inference_steps or STEPS)
        super().set_timesteps(sigmas=[1 - i * 1000 // count / 1000 for i in range(count)], device=device)


class DemoModel:
    """The pipeline and its text encoder.

    `pipe` is an ordinary `WanPipeline` without tokenizer and text encoder: give it `prompt_embeds` from `text`.
    """

    def __init__(self, transformer: WanTransformer3DModel, vae: AutoencoderKLWan, text: TextEncoder) -> None:
        scheduler = UniformFlowScheduler(shift=SHIFT)
        self.pipe = WanPipeline(
            tokenizer=None, text_encoder=None, vae=vae, scheduler=scheduler, transformer=transformer
        )
        self.pipe.set_progress_bar_config(disable=True)
        self.text = text

    @classmethod
    def load(cls, device: str = "cpu", weights: Path = WEIGHTS) -> DemoModel:
        """Read the shipped files; float32 inside.

        Raises:
            ValueError: if the device is not there.
        """
        try:
            torch.empty(1, device=device).item()
        except (RuntimeError, AssertionError, NotImplementedError):
            raise ValueError(
                f"There is no device {device!r} for torch {torch.__version__} here; use cpu, "
                "or cuda where there is a GPU."
            ) from None
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # diffusers warns of every cast to float32
        try:
            transformer, vae = (
                kind.from_single_file(
                    str(weights / file),
                    config=str(weights / "diffusers"),
                    subfolder=part,
                    torch_dtype=torch.float32,
                    local_files_only=True,
                )
                for kind, file, part in (
                    (WanTransformer3DModel, TRANSFORMER, "transformer"),
                    (AutoencoderKLWan, VAE, "vae"),
                )
            )
        finally:
            logging.set_verbosity(verbosity)
        return cls(transformer.eval().to(device), vae.eval().to(device), TextEncoder.load(weights / TEXT_ENCODER))

    @property
    def device(self) -> torch.device:
        return self.pipe.transformer.device

    @property
    def grid(self) -> TokenGrid:
        """The tokens of one clip."""
        return TokenGrid((FRAMES + 3) // 4, SIZE // 16, SIZE // 16)

    def noise(self, seeds: Sequence[int]) -> Tensor:
        """The starting latents of each seed, (seeds, 16, 5, 16, 16): drawn on the CPU, as ComfyUI draws them."""
        shape = (1, 16, (FRAMES + 3) // 4, SIZE // 8, SIZE // 8)
        return torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])

    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        steps: int = STEPS,
        guidance: float = GUIDANCE,
        on_step: Callable[[], None] | None = None,
    ) -> Tensor:
        """Run the pipeline: one clip per prompt and seed, in one batch.

        Returns:
            Latents as the transformer sees them, float32 (clips, 16, 5, 16, 16).
        """
        if len(prompts) != len(seeds):
            raise ValueError(f"{len(prompts)} prompts for {len(seeds)} seeds: one each is needed.")

        def step_end(pipe: WanPipeline, step: int, timestep: Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
            if on_step:
                on_step()
            return tensors

        context = self.text.encode(list(prompts)).to(self.device)
        return self.pipe(
            prompt_embeds=context,
            negative_prompt_embeds=self.text.encode([""] * len(prompts)).to(self.device),
            latents=self.noise(seeds),
            height=SIZE,
            width=SIZE,
            num_frames=FRAMES,
            num_inference_steps=steps,
            guidance_scale=guidance,
            output_type="latent",
            callback_on_step_end=step_end,
        ).frames

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents to clips: float32 in [0, 1], (clips, 3, 17, 128, 128)."""
        mean, std = self._latent_scale(latents)
        parts = [single_pass.decode(self.pipe.vae, part * std + mean) for part in latents.split(8)]
        return ((torch.cat(parts) + 1) / 2).clamp(0, 1)

    @torch.no_grad()
    def encode(self, clips: Tensor) -> Tensor:
        """Clips, float in [0, 1], (clips, 3, 17, 128, 128), to latents as the transformer sees them."""
        means = [single_pass.encode(self.pipe.vae, part * 2 - 1)[0] for part in clips.to(self.device).split(8)]
        mean, std = self._latent_scale(means[0])
        return (torch.cat(means) - mean) / std

    def _latent_scale(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the VAE's latents, by channel."""
        config = self.pipe.vae.config
        mean, std = (like.new_tensor(v).view(1, -1, 1, 1, 1) for v in (config.latents_mean, config.latents_std))
        return mean, std

    def generate(self, prompts: Sequence[str], seeds: Sequence[int], **options: Any) -> Tensor:
        """`sample`, then `decode`."""
        return self.decode(self.sample(prompts, seeds, **options))

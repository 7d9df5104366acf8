"""Samplers that sample twice inside, guide only some of the steps, or draw noise of their own."""

from __future__ import annotations

import comfy.sample
import comfy.samplers
import torch

SAMPLING = {
    "seed": ("INT", {"default": 0}),
    "steps": ("INT", {"default": 4}),
    "cfg": ("FLOAT", {"default": 5.0}),
    "positive": ("CONDITIONING",),
    "negative": ("CONDITIONING",),
    "latent_image": ("LATENT",),
}


def levels(model, steps):
    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", steps)


def part(model, noise, cfg, sigmas, positive, negative, latent, seed):
    sampler = comfy.samplers.sampler_object("euler")
    return comfy.sample.sample_custom(
        model, noise, cfg, sampler, sigmas, positive, negative, latent, disable_pbar=True, seed=seed
    )


class TwoExpertSampler:
    """Samples the noisy part with one model and the rest with another; the latent between them is not seen."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("LATENT",), "sample", "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model_high": ("MODEL",), "model_low": ("MODEL",), **SAMPLING}}

    def sample(self, model_high, model_low, seed, steps, cfg, positive, negative, latent_image):
        latent, sigmas = latent_image["samples"], levels(model_high, steps)
        noise, half = comfy.sample.prepare_noise(latent, seed), steps // 2
        mid = part(model_high, noise, cfg, sigmas[: half + 1], positive, negative, latent, seed)
        done = part(model_low, torch.zeros_like(noise), cfg, sigmas[half:], positive, negative, mid, seed)
        return (latent_image | {"samples": done},)


class OwnNoiseSampler:
    """Draws the noise of a batch at once, whatever the latent's batch_index says."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("LATENT",), "sample", "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), **SAMPLING}}

    def sample(self, model, seed, steps, cfg, positive, negative, latent_image):
        latent = latent_image["samples"]
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed))
        done = part(model, noise, cfg, levels(model, steps), positive, negative, latent, seed)
        return (latent_image | {"samples": done},)


class Scheduled(comfy.samplers.CFGGuider):
    """Guided above a noise level only; below it, the negative prompt is not computed."""

    above = 0.0

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        guided = float(timestep.max()) > self.above
        return comfy.samplers.sampling_function(
            self.inner_model, x, timestep, self.conds["negative"] if guided else None, self.conds["positive"],
            self.cfg if guided else 1.0, model_options=model_options, seed=seed,
        )  # fmt: skip


class ScheduledGuidance:
    RETURN_TYPES, FUNCTION, CATEGORY = ("GUIDER",), "guide", "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": ("MODEL",),
                "positive": ("CONDITIONING",),
                "negative": ("CONDITIONING",),
                "cfg": ("FLOAT", {"default": 5.0}),
                "above": ("FLOAT", {"default": 0.8}),
            }
        }

    def guide(self, model, positive, negative, cfg, above):
        guider = Scheduled(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(cfg)
        guider.above = above
        return (guider,)

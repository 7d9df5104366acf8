"""Editing a clip in ComfyUI: a guider for the stock sampler, whichever solver of ODEs it runs."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...footage.config import EditConfig, FootageError, first_step
from ...footage.flow_edit import FlowEdit
from ...footage.report import EditReport
from .samplers import asks_for_noise, name_of

_KEY = "vdit_footage"
_NOT_FOOTAGE = (
    "The sampler's latent is {given}, and the footage is {own}: connect Edit Footage's own latent to the sampler."
)


class FootageGuider(comfy.samplers.CFGGuider):
    """Follows `footage.FlowEdit`: row 0 of each model call is the footage, the others are the edits.

    It samples from the footage on, or from the latent of another sampler of the same edit, with the steps of the
    schedule that `config.change` leaves. Noise masks keep the footage outside of them.

    Args:
        model: a MODEL whose live transfer, if any, takes row 0 as the source.
        positive: one conditioning of 1 + targets prompts; with none the footage is walked through, to be observed, and
            stays as it is. negative: a conditioning.
        footage: a LATENT's samples of one video. report: is filled by each run. on_nothing: called by `sample` if no
            step is left to it.
    """

    def __init__(
        self,
        model: Any,
        positive: Any,
        negative: Any,
        footage: Tensor,
        config: EditConfig,
        report: EditReport | None = None,
        on_nothing: Callable[[], None] = lambda: None,
    ) -> None:
        self.footage, self.config, self.targets = footage, config, len(positive[0][0]) - 1
        model = model.clone()
        prepare = functools.partial(_for_all_rows, 1 + self.targets)
        model.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, _KEY, prepare)
        super().__init__(model)
        self.set_conds(positive, negative)
        self.set_cfg(config.target_guidance)
        #: Of all rows; the host asks it which conditionings count.
        self.scales = config.scales(self.targets)
        #: All rows get the same noise, whatever noise the sampler is given.
        self.one_noise = True
        self.report, self.on_nothing = report or EditReport(), on_nothing
        self.report.targets = self.targets
        self._flow: FlowEdit | None = None

    def sample(
        self,
        noise: Tensor,
        latent_image: Tensor,
        sampler: Any,
        sigmas: Tensor,
        denoise_mask: Tensor | None = None,
        callback: Callable[..., None] | None = None,
        disable_pbar: bool = False,
        seed: int | None = None,
    ) -> Any:
        """The edits' latents, (targets, channels, frames, height, width).

        Raises:
            FootageError: if the sampler adds noise of its own, or its latent is not of the footage's size.
        """
        expected = (max(1, self.targets), *self.footage.shape[1:])
        if tuple(latent_image.shape) != expected:
            raise FootageError(_NOT_FOOTAGE.format(given=_size(latent_image.shape), own=_size(expected)))
        self.report.evaluations = 0
        sampling = self.model_patcher.get_model_object("model_sampling")
        first = first_step(sigmas[:-1].tolist(), float(sampling.percent_to_sigma(1 - self.config.change)))
        if first >= len(sigmas) - 1:
            self.on_nothing()
            return latent_image
        told = None if callback is None else functools.partial(_later, callback, first)
        return super().sample(
            noise, latent_image, without_noise(sampler), sigmas[first:], denoise_mask, told, disable_pbar, seed
        )

    def inner_sample(
        self, noise: Tensor, latent_image: Tensor, device: Any, sampler: Any, sigmas: Tensor, denoise_mask: Any,
        callback: Any, disable_pbar: bool, seed: int | None, **more: Any,
    ) -> Any:  # fmt: skip
        sampling = self.inner_model.model_sampling

        def noised(sigma: float, noise: Tensor, latent: Tensor) -> Tensor:
            return sampling.noise_scaling(torch.tensor(sigma, device=latent.device), noise, latent)

        footage = self.inner_model.process_latent_in(self.footage.to(device=device, dtype=torch.float32))
        last = float(sigmas[-2]) if float(sigmas[-1]) == 0 else None
        self._flow = FlowEdit(footage, self.config, seed or 0, noised, last)
        try:
            from_latent = _FromLatent(sampler, self._flow.held if last is not None else None)
            return super().inner_sample(
                noise, latent_image, device, from_latent, sigmas, denoise_mask, callback, disable_pbar, seed, **more
            )
        finally:
            self.report.evaluations = self._flow.evaluations
            self._flow = None

    def predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: dict[str, Any] | None = None, seed: int | None = None
    ) -> Tensor:
        """What the sampler takes as the denoised edits."""
        assert self._flow is not None
        options = model_options or {}

        def predict(rows: Tensor, sigma: float) -> Tensor:
            return self._guided(rows, timestep[:1].expand(len(rows)), options)

        edits = self._flow.denoised(x[: self.targets], float(timestep[0]), predict)
        return edits if self.targets else self._flow.footage.expand_as(x)

    def _guided(self, rows: Tensor, timestep: Tensor, options: dict[str, Any]) -> Tensor:
        """ComfyUI's own guidance, once for the source's scale and once for the targets'."""
        positive, negative = self.conds.get("positive"), self.conds.get("negative")
        if all(scale == 1 for scale in self.scales) and not options.get("disable_cfg1_optimization", False):
            negative = None
        conds, about = [positive, negative], {"input": rows, "model": self.inner_model, "model_options": options}
        if (batch := options.get("sampler_calc_cond_batch_function")) is not None:
            out = batch({"conds": conds, "sigma": timestep, **about})
        else:
            out = comfy.samplers.calc_cond_batch(self.inner_model, conds, rows, timestep, options)
        for change in options.get("sampler_pre_cfg_function", ()):
            given = {"conds": conds, "conds_out": out, "cond_scale": self.cfg, "timestep": timestep, "sigma": timestep}
            out = change({**given, **about})
        parts = []
        for some, scale in ((slice(0, 1), self.scales[0]), (slice(1, None), self.cfg)):
            cond, uncond = (x[some] if isinstance(x, Tensor) else x for x in out[:2])
            parts.append(
                comfy.samplers.cfg_function(
                    self.inner_model, cond, uncond, scale, rows[some], timestep[some], model_options=options,
                    cond=positive, uncond=negative,
                )
            )  # fmt: skip
        return torch.cat(parts)


class _FromLatent(comfy.samplers.Sampler):
    """A sampler that begins with the latent as it is, and gives back what it ends with as it is.

    Samplers begin with noise_scaling(sigma, noise, latent), which is linear in both: so there is a noise that gives the
    latent itself. What they divide by at their end, where they stop at some noise, is undone.

    finished: what is done to the samples of a schedule that ends without noise.
    """

    def __init__(self, sampler: Any, finished: Callable[[Tensor], Tensor] | None) -> None:
        self.sampler, self.finished = sampler, finished

    def sample(
        self, model_wrap: Any, sigmas: Tensor, extra_args: Any, callback: Any, noise: Tensor, latent_image: Tensor,
        denoise_mask: Tensor | None = None, disable_pbar: bool = False,
    ) -> Tensor:  # fmt: skip
        sampling = model_wrap.inner_model.model_sampling
        one, zero = torch.ones((), device=noise.device), torch.zeros((), device=noise.device)
        of_noise = sampling.noise_scaling(sigmas[0], one.clone(), zero)
        of_latent = sampling.noise_scaling(sigmas[0], zero.clone(), one)
        noise = latent_image * ((1 - of_latent) / of_noise)
        samples = self.sampler.sample(
            model_wrap, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar
        )
        samples = samples / sampling.inverse_noise_scaling(sigmas[-1], one)
        return samples if self.finished is None else self.finished(samples)


def without_noise(sampler: Any) -> Any:
    """A sampler that stops with an error if it asks for noise.

    Raises:
        FootageError: at once if it is known to draw some itself.
    """
    error = FootageError(
        f"The sampler {name_of(sampler)} adds noise in every step, and an edit follows its own: use one that "
        "adds none, such as euler, heun, dpmpp_2m or uni_pc."
    )
    if "cfg_pp" in name_of(sampler):
        raise FootageError(
            f"The sampler {name_of(sampler)} steps by the negative prompt alone, and an edit has two guidances: use "
            "euler, or another without cfg_pp."
        )
    takes = asks_for_noise(sampler)
    if takes is None:
        return sampler
    if not takes:
        raise error

    def refuse(*_: Any) -> Tensor:
        raise error

    function = sampler.sampler_function

    @functools.wraps(function)
    def sampled(*args: Any, **options: Any) -> Tensor:
        return function(*args, **{**options, "noise_sampler": refuse})

    quiet = copy.copy(sampler)
    quiet.sampler_function = sampled
    return quiet


def _for_all_rows(rows: int, executor: Any, model: Any, shape: Any, *args: Any, **kwargs: Any) -> Any:
    """PREPARE_SAMPLING: memory is needed for footage and edits."""
    return executor(model, [rows, *shape[1:]], *args, **kwargs)


def _later(callback: Callable[..., None], first: int, step: int, denoised: Any, x: Any, total: int) -> None:
    """A sampler's callback, for which the skipped steps are done."""
    callback(step + first, denoised, x, total + first)


def _size(shape: Any) -> str:
    return " x ".join(map(str, shape))

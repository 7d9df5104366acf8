"""What the host must know of ComfyUI's samplers: how often they evaluate the model, and the noise of their steps."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from comfy.k_diffusion import sampling
from torch import Tensor

_TWICE = ("heun", "dpm_2", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_2s_ancestral_cfg_pp", "dpmpp_sde",
          "dpmpp_sde_gpu", "exp_heun_2_x0", "exp_heun_2_x0_sde", "seeds_2", "sa_solver_pece")  # fmt: skip
_EVALUATIONS = dict.fromkeys(_TWICE, 2) | {"heunpp2": 3, "seeds_3": 3}


def evaluations(sampler: Any) -> int:
    """How often a sampler evaluates a prompt in a step at most; 1 if it is not known."""
    return _EVALUATIONS.get(_name(getattr(sampler, "sampler_function", None)), 1)


def with_one_noise(sampler: Any) -> tuple[Any, str | None]:
    """A sampler that gives all rows of its batch the same noise in every step.

    ComfyUI draws a step's noise for the batch as a whole, so each row gets its own. Here it is drawn as for a batch of
    one, with the numbers that this one video would get, and repeated. The sampler itself is left as it is.

    Returns:
        A copy of the sampler, or the sampler if it adds no noise; and what is wrong if its noise cannot be had.
    """
    function = getattr(sampler, "sampler_function", None)
    if function is None:
        return sampler, None
    if not _takes_noise(function):
        wrong = "this sampler draws its own noise in every step, which differs between source and targets"
        return sampler, None if asks_for_noise(sampler) is None else wrong
    if "noise_sampler" in sampler.extra_options:
        return sampler, "another node gives this sampler its noise, which may differ between source and targets"

    @functools.wraps(function)
    def stepping(model: Any, x: Tensor, sigmas: Tensor, **options: Any) -> Tensor:
        if isinstance(getattr(model, "noise", None), Tensor):  # what is painted over outside of a mask
            model.noise = _repeated(model.noise[:1], x)
        of_one: list[Callable[..., Tensor]] = []

        def noise_sampler(sigma: Any, sigma_next: Any) -> Tensor:
            if not of_one:
                of_one.append(_stock_noise(function, x[:1], sigmas, options))
            return _repeated(of_one[0](sigma, sigma_next), x)

        return function(model, x, sigmas, **options, noise_sampler=noise_sampler)

    equal = copy.copy(sampler)
    equal.sampler_function = stepping
    return equal, None


def asks_for_noise(sampler: Any) -> bool | None:
    """Whether a sampler takes the noise of its steps from outside (True) or draws some itself (False); None if it adds
    none."""
    function = getattr(sampler, "sampler_function", None)
    if function is None:
        return None
    if _takes_noise(function):
        return True
    return False if _draws_noise(function, sampler.extra_options) else None


def _stock_noise(function: Any, x: Tensor, sigmas: Tensor, options: Mapping[str, Any]) -> Callable[..., Tensor]:
    """The noise that a sampler of ComfyUI makes for itself if it is given none."""
    seed, name = (options.get("extra_args") or {}).get("seed"), _name(function)
    if name.startswith("dpmpp_") and "sde" in name:
        low, high = sigmas[sigmas > 0].min(), sigmas.max()
        return sampling.BrownianTreeNoiseSampler(x, low, high, seed=seed, cpu=not name.endswith("_gpu"))
    return sampling.default_noise_sampler(x, seed=seed)


def name_of(sampler: Any) -> str:
    """A sampler's name as in ComfyUI's list; of others the name of their function or class."""
    function = getattr(sampler, "sampler_function", None)
    return type(sampler).__name__ if function is None else _name(function) or type(sampler).__name__


def _repeated(one: Tensor, x: Tensor) -> Tensor:
    return one.expand_as(x).clone()


def _name(function: Any) -> str:
    """A sampler's name as in ComfyUI's list."""
    return getattr(function, "__name__", "").removeprefix("sample_")


def _takes_noise(function: Any) -> bool:
    takes = inspect.signature(function).parameters
    return "noise_sampler" in takes or (_name(function) == "dpm_adaptive_function" and "extra_options" in takes)


def _draws_noise(function: Any, options: Mapping[str, Any]) -> bool:
    """Whether a sampler that takes no noise from outside makes some."""
    churn = inspect.signature(function).parameters.get("s_churn")
    if churn is not None:
        return options.get("s_churn", churn.default) > 0
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and not {"randn", "randn_like"}.isdisjoint(code.co_names)

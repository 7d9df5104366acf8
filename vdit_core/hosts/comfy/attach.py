"""Putting interceptors on a MODEL, and the two wrappers that bring its runs to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...call import Interceptor, ModelSignature, TokenGrid
from .errors import HostError
from .models import Family, family_of, network_of, unknown
from .outcome import Outcome
from .override import Override, override_for
from .samplers import with_one_noise
from .session import Session

_KEY = "vdit_attention"
_OVERRIDE = "optimized_attention_override"

OnEnd = Callable[[Outcome], None]
OnMissed = Callable[[str], None]
#: guider's conditionings, latent, the noise that is added to it -> what is wrong with them, or None.
Check = Callable[[dict[str, Any], Tensor, Tensor], str | None]


@dataclass(frozen=True)
class Attached:
    """One interceptor on a MODEL, and whom to tell; see `attach`."""

    interceptor: Interceptor
    on_end: OnEnd | None = None
    on_missed: OnMissed | None = None
    required: bool = False
    check: Check | None = None


def attach(
    model: Any,
    interceptor: Interceptor,
    on_end: OnEnd | None = None,
    on_missed: OnMissed | None = None,
    required: bool = False,
    check: Check | None = None,
) -> Any:
    """A clone of a MODEL whose runs go through one more interceptor; those attached before stay outside of it.

    Args:
        on_end: called after each sampling run, after the interceptor's own `end`.
        on_missed: called after the first model call of a run, if self-attention could not be reached; with the reason.
        required: whether the run is of no use without the interceptor. It then ends there with an error.
        check: called when a run begins, with the guider's conditionings, the latent and the noise: what the sampler was
            given.

    Raises (from the sampler):
        NotReached: if `required` and the model's self-attention does not come by.
        HostError: if the run computes attention on grids that the interceptor cannot work on, or if `required` and
            the model's tokens are not known.
        ValueError: of any kind, from an interceptor that does not fit the run, before its first attention call.
    """
    model = model.clone()
    attached = (*(model.get_attachment(_KEY) or ()), Attached(interceptor, on_end, on_missed, required, check))
    model.set_attachments(_KEY, attached)
    if len(attached) == 1:
        model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, _KEY, _sample)
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, _KEY, _apply)
    return model


def signature(model: Any) -> ModelSignature:
    """The layers and heads of a MODEL.

    Raises:
        HostError: if its tokens are not known, with the models that are.
    """
    network, family = _known(model)
    return family.signature_of(network)


def kind(model: Any) -> str:
    """What tells a MODEL apart from others of its signature, as `Run.kind`.

    Raises:
        HostError: as `signature`.
    """
    network, family = _known(model)
    return family.kind_of(network)


def grid(model: Any, samples: Tensor) -> TokenGrid:
    """How the tokens of a video lie, without what prompts may add. samples: its latents, (videos, channels, frames,
    height, width).

    Raises:
        HostError: as `signature`.
    """
    network, family = _known(model)
    return family.grid_of(network, samples, {})


def fills_text(model: Any) -> bool:
    """Whether prompts of several lengths can be one batch: zeros behind a shorter one change nothing. True for a model
    that is not known, which is left as it is."""
    family = family_of(network_of(model))
    return family is None or family.fills_text


def _known(model: Any) -> tuple[Any, Family]:
    network = network_of(model)
    family, reason = family_of(network), unknown(network)
    if family is None or reason is not None:
        raise HostError(f"{reason}.")
    return network, family


def _sample(
    executor: Any, noise: Tensor, latent: Tensor, sampler: Any, sigmas: Tensor, *args: Any, **kwargs: Any
) -> Any:
    """OUTER_SAMPLE: one sampling run."""
    guider = executor.class_obj
    attached = guider.model_patcher.get_attachment(_KEY) or ()
    session = Session(guider, attached, sampler, sigmas, noise, latent, _seed(args, kwargs))
    guider.model_options.setdefault("transformer_options", {})[_KEY] = session
    samples = None
    try:
        session.open()
        if session.stock is None and session.chain.one_noise:
            sampler, caveat = with_one_noise(sampler)
            session.note(caveat)
        samples = executor(noise, latent, sampler, sigmas, *args, **kwargs)
    except BaseException as error:
        session.broke_off(error)
        raise
    finally:
        guider.model_options["transformer_options"].pop(_KEY, None)
        session.close(samples)
    return samples


def _seed(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """The seed among the arguments that follow the noise levels: (denoise_mask, callback, disable_pbar, seed, ...)."""
    seed = kwargs.get("seed", args[3] if len(args) > 3 else None)
    return seed if isinstance(seed, int) else None


def _apply(
    executor: Any,
    x: Tensor,
    t: Tensor,
    c_concat: Any = None,
    c_crossattn: Any = None,
    control: Any = None,
    transformer_options: dict[str, Any] | None = None,
    **conds: Any,
) -> Any:
    """APPLY_MODEL: one call of the model."""
    options = dict(transformer_options or {})
    session: Session | None = options.get(_KEY)
    override = None
    if session is not None and session.stock is None and not isinstance(options.get(_OVERRIDE), Override):
        model_call = session.model_call(executor.class_obj, x, t, c_crossattn, options, conds)
        x = session.with_driven(executor.class_obj, x, model_call)
        if session.looks_at(model_call):
            override = options[_OVERRIDE] = override_for(session, model_call, options.get(_OVERRIDE))
    output = executor(x, t, c_concat, c_crossattn, control, options, **conds)
    if session is not None and override is not None:
        session.came_by(override, options)
    return output

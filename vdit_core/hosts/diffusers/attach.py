"""Putting interceptors on a pipeline, and the hooks that bring its run to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from inspect import signature
from typing import Any

from diffusers import DiffusionPipeline
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks.hooks import StateManager
from torch import nn

from ...call import Chain, Interceptor
from .models import family_of
from .session import Session

_HOOK = "vdit_attention"


@contextmanager
def attach(
    pipe: DiffusionPipeline, *interceptors: Interceptor, branches: Sequence[str] | None = None
) -> Iterator[None]:
    """Send the self-attention calls of one call of a video pipeline through interceptors; the first is the outermost.

    Args:
        branches: the prompts that the pipeline will compute, ("cond", "uncond") or ("cond",). None asks the pipeline;
            one that does not know before it runs is taken to compute "cond" alone.

    Raises:
        RuntimeError: if the pipeline's model is not known, naming those that are; if it is attached already, or its
            self-attention is not stock.

    Raises (from the pipeline's call):
        RuntimeError: if a second run starts in the same block, if the run computes a prompt that was not announced, or
            if the transformer is called without `cache_context`, where that says what is computed.
        ValueError: of any kind, from an interceptor that does not fit the run, before its first attention call.
    """
    models = [m for m in (pipe.transformer, getattr(pipe, "transformer_2", None)) if m is not None]
    family = family_of(models[0])
    session = Session(pipe, family, Chain(interceptors), branches)
    completed = False
    with ExitStack() as attached:
        try:
            for model in models:
                for layer, attention in enumerate(family.attentions(model)):
                    attached.callback(family.intercept(layer, attention, session))
                attached.callback(_watch(model, session))
            yield
            completed = session.reached_the_end()
        finally:
            attached.close()
            session.chain.end(completed)


def _watch(model: Any, session: Session) -> Any:
    """Tell a session of each forward pass of a transformer; returns what undoes it."""
    registry, hook = HookRegistry.check_if_exists_or_initialize(model), _Watch(session)
    registry.register_hook(hook, _HOOK)

    def undo() -> None:
        registry.remove_hook(_HOOK, recurse=False)
        hook.session = None  # diffusers leaves a hook in a cycle; what was recorded shall not stay with it

    return undo


class _Watch(ModelHook):
    """Sees each forward pass of a transformer; the pipeline's `cache_context` tells it the branch."""

    _is_stateful = True

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session: Session | None = session
        self.context = StateManager(dict)

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        context = getattr(self.context, "_context", None) or getattr(self.context, "_current_context", None)
        names = signature(type(module).forward).parameters
        inputs = dict(zip(list(names)[1:], args, strict=False)) | kwargs
        assert self.session is not None
        self.session.model_call(module, context if isinstance(context, str) else getattr(context, "name", None), inputs)
        if self.session.chain.driven:
            return (), inputs | {"hidden_states": self.session.with_driven(module, inputs)}
        return args, kwargs

    def reset_state(self, module: nn.Module) -> nn.Module:
        self.context.reset()
        return module

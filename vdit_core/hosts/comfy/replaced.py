"""Who replaced parts of a model, so that its self-attention does not come to ComfyUI's attention function.

Custom nodes do so in several ways: an object patch on a block's forward, a method set on the module or its class, a
function put into the model's own module, a wrapper around the model, or a patch that replaces whole blocks.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from comfy.patcher_extension import WrappersMP

from .models import Family

_FORWARDS = ("forward", "_forward", "forward_orig")
_CORE = ("comfy.", "comfy_extras.", "torch.", "comfy_api.")
_WRAPPERS = ("DIFFUSION_MODEL", "APPLY_MODEL", "CALC_COND_BATCH", "PREDICT_NOISE")

#: What to use instead, by a word in the name of what replaced something.
_INSTEAD = {
    "teacache|magcache|easycache|cache": "Use ComfyUI's own EasyCache node instead.",
    "sage": "Use the plain node that patches Sage Attention instead, which goes through ComfyUI's attention function.",
    "radial": "Use this pack's Sparse Attention with the method 'radial' instead.",
}
_OTHERWISE = "Remove that node from this model."


@dataclass(frozen=True)
class Replacement:
    """Something of a model that is not its own. what: the part. function: what is there now. pack: whose it is."""

    what: str
    function: str
    pack: str

    def __str__(self) -> str:
        return f"{self.pack} replaced {self.what} with its {self.function}"


class Replacements:
    """What replaced parts of a model.

    A clone's patches are looked for before its run. What is bound to the modules is looked for in a model call: before
    it, the modules may still have the patches of another clone, and some nodes put theirs there for the call only.
    """

    def __init__(self, patcher: Any, network: Any, family: Family | None) -> None:
        self._network, self._family = network, family
        self._before = list(dict.fromkeys(_object_patches(patcher)))

    def why(self, options: Mapping[str, Any], strange: str | None) -> tuple[str, str]:
        """Why no self-attention came by, with who is to blame if that can be seen; and what to use instead.

        options: the transformer options of the model call. strange: what the calls that did come were like.
        """
        culprit = self.culprit(options)
        if culprit is not None:
            cause, named = f"{culprit}, which does not call ComfyUI's attention function", f"{culprit}".lower()
        else:
            cause, named = strange or "another node computes it by itself, or leaves it out", ""
        instead = next((text for words, text in _INSTEAD.items() if re.search(words, named)), _OTHERWISE)
        return f"The model's self-attention could not be reached: {cause}.", instead

    def culprit(self, options: Mapping[str, Any]) -> Replacement | None:
        """What most likely keeps self-attention from coming by."""
        return next(iter(self._found(options)), None)

    def of_self_attention(self) -> bool:
        """Whether the blocks' self-attention is another node's."""
        found = (*self._before, *_of_modules(self._network, self._family))
        own = self._family.self_attention if self._family is not None else ""
        return any((own and own in each.what) or each.what == "the blocks" for each in found)

    def _found(self, options: Mapping[str, Any]) -> list[Replacement]:
        """The likeliest first."""
        found = [*self._before, *_of_modules(self._network, self._family), *_of_blocks(options), *_wrappers(options)]
        return list(dict.fromkeys(found))


def _object_patches(patcher: Any) -> Iterator[Replacement]:
    """A clone's own patches, set by nodes before this run."""
    for key, value in getattr(patcher, "object_patches", {}).items():
        name = key.removeprefix("diffusion_model.")
        if name != key and _is_foreign(value) and not re.search(r"cross_att|attn2", name):
            yield _replacement(re.sub(r"^\w*blocks\.\d+\.", "the blocks' ", name), value)


def _of_modules(network: Any, family: Family | None) -> Iterator[Replacement]:
    """Methods that are not those of the modules' classes, and methods of classes and modules that are not their own."""
    parts = [("the model", network)]
    if family is not None:
        first = family.parts_of(network).blocks[0]
        parts.append(("the blocks", first.module))
        if family.self_attention:
            parts.append((f"the blocks' {family.self_attention}", first.self_attention))
    for what, module in reversed(parts):
        for name in _FORWARDS:
            function = vars(module).get(name, getattr(type(module), name, None))
            if function is not None and _is_foreign(function):
                part = f"{what} {name}" if what.count("'") else f"{what}.{name}"
                yield _replacement(part, function)
    home = sys.modules.get(type(network).__module__)
    attention = getattr(home, "optimized_attention", None)
    if attention is not None and _is_foreign(attention):
        yield _replacement("optimized_attention of the model's module", attention)


def _of_blocks(options: Mapping[str, Any]) -> Iterator[Replacement]:
    """Whole blocks that another node computes."""
    for function in options.get("patches_replace", {}).get("dit", {}).values():
        if _is_foreign(function):
            yield _replacement("the blocks", function)


def _wrappers(options: Mapping[str, Any]) -> Iterator[Replacement]:
    """Wrappers around the model, any of which may not call what it wraps."""
    for kind in _WRAPPERS:
        by_key = options.get("wrappers", {}).get(getattr(WrappersMP, kind, None), {})
        for functions in by_key.values():
            for function in functions:
                if _is_foreign(function):
                    yield _replacement("the call of the model", function)


def _replacement(what: str, function: Any) -> Replacement:
    function = _inner(function)
    name = getattr(function, "__qualname__", type(function).__qualname__).removesuffix(".<locals>")
    return Replacement(what, name.rpartition("<locals>.")[2], _pack(_module(function)))


def _is_foreign(function: Any) -> bool:
    """Whether a function is neither ComfyUI's nor PyTorch's nor this pack's."""
    module = _module(_inner(function))
    return bool(module) and not module.startswith((*_CORE, __name__.rpartition(".hosts.")[0]))


def _inner(function: Any) -> Any:
    """The function that another one was made of."""
    while True:
        if isinstance(function, functools.partial | functools.partialmethod):
            function = function.func
        elif inspect.ismethod(function):
            function = function.__func__
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        else:
            return function


def _module(function: Any) -> str:
    if not hasattr(function, "__qualname__"):
        function = type(function)
    return getattr(function, "__module__", None) or ""


def _pack(module: str) -> str:
    """The custom node pack that a module is of; ComfyUI names a pack's modules after its path."""
    inside = re.split(r"custom_nodes[./\\]", module)[-1]
    return re.split(r"[./\\]", inside)[0].replace("_x_", ".")

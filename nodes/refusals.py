"""What a node refuses is said above it, too: the page keeps an error's text behind a button."""

from __future__ import annotations

from functools import wraps
from typing import Any

import comfy.model_management
from comfy_api.latest import io

from ..vdit_core.outcome import failed
from .outcomes import executing_node, show


def say_refusals(node: type[io.ComfyNode]) -> None:
    """Let a node tell the page why it raises."""
    execute = node.execute.__func__

    @wraps(execute)
    def told(cls: type[io.ComfyNode], *args: Any, **inputs: Any) -> Any:
        try:
            return execute(cls, *args, **inputs)
        except comfy.model_management.InterruptProcessingException:
            raise
        except Exception as error:
            show(executing_node(), failed(str(error)))
            raise

    node.execute = classmethod(told)

"""Progress and interruption of work that a node does itself."""

from __future__ import annotations

from collections.abc import Callable

import comfy.model_management
import comfy.utils


def bar(total: int) -> Callable[[], None]:
    """A progress bar on the running node; call it once for each of `total` parts."""
    progress = comfy.utils.ProgressBar(total)
    return lambda: progress.update(1)


#: Raises ComfyUI's interrupt if the user asked for it; to be called often.
stop_if_asked = comfy.model_management.throw_exception_if_processing_interrupted

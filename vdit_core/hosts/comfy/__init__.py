"""The ComfyUI host: interceptors on the self-attention of a video MODEL.

    model = attach(model, interceptor)

Nothing is ever changed on the shared model: `attach` clones the patcher and adds two wrappers to the clone, once.
OUTER_SAMPLE opens a session for each sampling run and closes it however the run ends; APPLY_MODEL puts an attention
override into the options of each model call, outermost, and hands what is not ours to the override that was there.
"""

from .attach import attach, fills_text, grid, kind, signature
from .errors import HostError, NotReached
from .footage import FootageGuider
from .outcome import Outcome

__all__ = ["FootageGuider", "HostError", "NotReached", "Outcome", "attach", "fills_text", "grid", "kind", "signature"]

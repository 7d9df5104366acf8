"""The diffusers host: interceptors on the self-attention of a video pipeline.

    with attach(pipe, recorder):
        pipe(...)

One `with` block is one sampling run. When it ends, in whatever way, the pipeline is as it was.
"""

from .attach import attach

__all__ = ["attach"]

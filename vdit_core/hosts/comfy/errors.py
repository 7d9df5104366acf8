"""What can be wrong with a graph for this host."""

from __future__ import annotations

from ...errors import VDiTError


class HostError(VDiTError, RuntimeError):
    """A graph asks for something that cannot be done on this model call."""


class NotReached(HostError):
    """The model computes its self-attention past ComfyUI's attention function, so nothing can be seen or changed."""

"""ComfyUI loads this folder as a node pack; see README.md."""

from .nodes import comfy_entrypoint

__all__ = ["comfy_entrypoint"]

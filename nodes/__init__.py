"""The pack's ComfyUI nodes. None yet: the core and the command line came first."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io


class VDiTExtension(ComfyExtension):
    """What ComfyUI asks for the pack's nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return []


async def comfy_entrypoint() -> VDiTExtension:
    return VDiTExtension()

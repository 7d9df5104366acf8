"""Demo Wan2.1 and its clip: what ships with the pack, for trying everything on a CPU."""

from __future__ import annotations

from comfy_api.latest import InputImpl, io

from ..vdit_core.hosts.comfy import demo as comfy_demo
from ..vdit_core.tiny_wan.captions import VOCABULARY
from ..vdit_core.tiny_wan.files import CLIP, CLIP_CAPTION, GUIDANCE, STEPS, WEIGHTS
from . import categories


class DemoModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_DemoModel",
            display_name="Demo Wan2.1 (tiny)",
            category=categories.DEMO,
            description="A tiny Wan2.1 that ships with this pack, trained on a synthetic world of cars, trucks and "
            f"dogs: 128 x 128 pixels, 17 frames, {STEPS} steps (euler, simple), cfg {GUIDANCE:g}. Its shift is set. "
            f"It knows these words: {' '.join(VOCABULARY)}.",
            search_aliases=["tiny wan", "test model", "checkpoint", "load demo", "no download", "runs on cpu"],
            inputs=[],
            outputs=[
                io.Model.Output(display_name="model", tooltip="A Wan2.1 T2V model of 9 layers."),
                io.Clip.Output(display_name="clip",
                    tooltip="The text encoder, for CLIP Text Encode. A word that it does not know is an error."),
                io.Vae.Output(display_name="vae", tooltip="A Wan2.1 VAE."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(*comfy_demo.load())


class DemoClip(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_DemoClip",
            display_name="Demo Clip",
            category=categories.DEMO,
            description="A rendered clip of the demo model's world, 128 x 128 pixels and 17 frames, to edit with Edit "
            f"Footage. It shows: {CLIP_CAPTION}.",
            search_aliases=["example video", "test video", "load demo", "no download"],
            inputs=[],
            outputs=[
                io.Video.Output(display_name="video", tooltip="The clip."),
                io.String.Output(display_name="caption", tooltip="What it shows, as a prompt of the demo model."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(InputImpl.VideoFromFile(str(WEIGHTS / CLIP)), CLIP_CAPTION)

"""Side by Side: videos in one picture, each under its label."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..vdit_core.reporting.labelled import Direction, beside
from . import categories

LABELS = "source\nwith the source's attention"


class SideBySide(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_SideBySide",
            display_name="Side by Side",
            category=categories.TRANSFER,
            description="Puts up to four videos of one size into one, with a label above each: a source, the same with "
            "another prompt, and what that prompt gives alone.",
            search_aliases=["compare videos", "label", "stitch", "concat", "grid", "before and after", "add text"],
            inputs=[
                io.Image.Input("first", tooltip="The first video's frames."),
                io.Image.Input("second", tooltip="The second video's frames, as many and as large."),
                io.Image.Input("third", optional=True, tooltip="The third video's frames."),
                io.Image.Input("fourth", optional=True, tooltip="The fourth video's frames."),
                io.String.Input("labels", default=LABELS, multiline=True,
                    tooltip="The labels, a line for each video. An empty field leaves no room for labels."),
                io.Combo.Input("direction", options=["right", "down", "grid"], default="right",
                    tooltip="The place of the next video: right, down, or grid for two rows of two."),
                io.Int.Input("enlarge", default=1, min=1, max=8,
                    tooltip="How many times as large the videos are shown. 1 leaves their pixels as they are."),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The frames of the video that shows them all.")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        first: Tensor,
        second: Tensor,
        labels: str,
        direction: Direction,
        enlarge: int,
        third: Tensor | None = None,
        fourth: Tensor | None = None,
    ) -> io.NodeOutput:
        given = [video for video in (first, second, third, fourth) if video is not None]
        lines = [line.strip() for line in labels.strip().splitlines()]
        if len(lines) > len(given):
            raise ValueError(
                f"There are {len(lines)} labels for {len(given)} videos. Write a line for each video that is "
                "connected, or connect the others."
            )
        lines += [""] * (len(given) - len(lines))
        clips = [(line, video[..., :3].movedim(-1, 0)) for line, video in zip(lines, given, strict=True)]
        return io.NodeOutput(beside(clips, enlarge, direction).movedim(0, -1).contiguous())

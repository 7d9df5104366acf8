"""Renders the clip that ships: python -m training.clip."""

from __future__ import annotations

from vdit_core.reporting.labelled import frames
from vdit_core.reporting.video import write_mp4
from vdit_core.tiny_wan.captions import Caption
from vdit_core.tiny_wan.files import CLIP, CLIP_CAPTION, WEIGHTS

from .painter import render
from .world import Scenes

#: Of a scene that no part of the demo model was trained on.
SEED = 600_105


def main() -> None:
    """Write it, nearly without loss."""
    clip = render(Scenes.sample([SEED], [Caption.parse(CLIP_CAPTION)]))[0]
    write_mp4(frames(clip), WEIGHTS / CLIP, crf=4)


if __name__ == "__main__":
    main()

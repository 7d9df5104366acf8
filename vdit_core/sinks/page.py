"""Writes what was found as a folder: `index.html` that shows the pictures, videos and tables, and `sinks.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..reporting.files import write_json, write_page, write_picture
from ..reporting.labelled import side_by_side
from ..reporting.video import write_mp4
from . import ablation, pictures
from .describe import describe
from .detect import Findings
from .record import SinkRecord


def write(
    record: SinkRecord,
    findings: Findings,
    title: str,
    folder: Path,
    clip: Tensor | None = None,
    tried: Sequence[ablation.Ablation] = (),
    clips: Mapping[str, Tensor] | None = None,
) -> list[str]:
    """Write everything into a folder; returns the names of the files.

    clip: the video that was measured, float in [0, 1], (3, frames, height, width). tried, clips: see `ablation.run`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shown = _shown(findings)
    drawn = {
        "heads": pictures.heads_picture(findings),
        "steps": pictures.steps_picture(record, findings),
        **{
            f"layer-{layer}-head-{head}": pictures.over_frames(
                record.mean_ratios(layer)[record.heads.index(head)],
                findings,
                findings.of(layer, head),
                None if clip is None else clip.permute(1, 2, 3, 0),
            )
            for layer, head in shown
        },
    }
    for name, picture in drawn.items():
        write_picture(folder / f"{name}.png", picture)
    videos = _videos(clips or {})
    for name, shown_beside in videos.items():
        write_mp4(side_by_side(shown_beside, scale=2), folder / f"{name}.mp4")
    found: dict[str, Any] = {"title": title, "findings": findings.as_json(), "ablations": [t.as_json() for t in tried]}
    write_json(folder / "sinks.json", found)
    write_page(
        folder / "index.html",
        Path(__file__).with_name("page.html"),
        title=title,
        paragraphs=describe(findings).split("\n\n"),
        measured=str(record),
        maps=[{"file": f"layer-{a}-head-{b}.png", "name": f"layer {a}, head {b}"} for a, b in shown],
        table=[ablation.HEADS, *ablation.table(tried)] if tried else [],
        videos=list(videos),
        any_sinks=bool(findings.sinks),
    )
    return ["index.html", "sinks.json", *(f"{name}.png" for name in drawn), *(f"{name}.mp4" for name in videos)]


def _shown(findings: Findings) -> list[tuple[int, int]]:
    """The heads whose maps are shown: those with the most mass on sinks, else with the strongest key; three."""
    order = findings.peak.ravel().argsort()[::-1][:3]
    width = len(findings.heads)
    return [(findings.layers[int(i) // width], findings.heads[int(i) % width]) for i in order]


def _videos(clips: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """By action, what is shown beside the untouched video: more than three in a row would be too small."""
    untouched = dict(list(clips.items())[:1])
    actions = list(dict.fromkeys(label.partition(":")[0] for label in clips if label not in untouched))
    return {a: untouched | {label: clip for label, clip in clips.items() if label.startswith(f"{a}:")} for a in actions}

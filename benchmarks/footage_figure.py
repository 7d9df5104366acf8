"""Draws docs/images/footage.png from docs/footage_report.json, the means of benchmarks/footage.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from vdit_core.reporting.figures import BLUE, GREEN, GREY, ORANGE, VERMILION, figure, render, style  # noqa: E402

#: How the methods of a kind are drawn: what their names begin with, what the legend says.
KINDS = {
    "plain": ("the target prompt alone", GREY),
    "noised": ("clip noised, its maps", VERMILION),
    "inversion": ("Euler inversion", ORANGE),
    "video-to-video": ("video to video", GREEN),
    "edit": ("FlowEdit", BLUE),
}
EDITS = {"red": "A car → a red car", "winter": "summer → winter"}


def main() -> None:
    report = json.loads((ROOT / "docs" / "footage_report.json").read_text(encoding="utf-8"))
    with style():
        drawn = figure(1000, 430)
        for axes, (edit, title) in zip(drawn.subplots(1, 2), EDITS.items(), strict=True):
            for kind, (label, color) in KINDS.items():
                for maps in ("none", "all"):
                    of_kind = {name: means[edit] for name, means in report["means"].items()
                               if name.startswith(kind) and name.endswith(f"maps {maps}")}  # fmt: skip
                    if of_kind:
                        x, y = ([point[name] for point in of_kind.values()] for name in ("outside", "psnr"))
                        filled = color if maps == "all" else "none"
                        said = f"{label}{' with the clip’s maps' if maps == 'all' and kind != 'noised' else ''}"
                        axes.scatter(x, y, 60, facecolors=filled, edgecolors=color, linewidths=1.6, label=said)
            axes.set_title(title)
            axes.set_xlabel("kept: outside of the edit, to the clip (dB)")
            axes.set_ylabel("edited: to the true edit (dB)")
            axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=9)
        render(drawn).save(ROOT / "docs" / "images" / "footage.png", optimize=True)


if __name__ == "__main__":
    main()

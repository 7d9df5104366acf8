"""Writes the page of `vdit paper`: pictures, videos, `paper.json`, and `index.html` that shows them with the verdicts.

`figure.png`, a map beside the sweep's bars, is the picture of docs/paper.md: `vdit paper --out out/paper` and copy
it to docs/images/paper.png.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader
from PIL import Image

from ..maps import pictures, structure
from ..maps.compare import MEASURES, Likeness
from ..maps.summary import summary
from ..maps.view import title
from ..reporting.labelled import side_by_side
from ..reporting.video import write_mp4
from ..sweep import pictures as sweep_pictures
from ..sweep.scores import LIKENESS
from . import report as transfer_report
from .paper import CHANGES, OTHER_SEED, SHOWN, SOURCE, SWEPT, Findings, Swept
from .report import labelled
from .verdicts import PLACES, tally

_SMALL = 320  # px of a map that stands beside another: at full size the page would shrink it


def write(findings: Findings, seconds: float, folder: Path) -> dict[str, Any]:
    """Write everything into a folder; returns what `paper.json` holds."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in (_maps(findings) | _sweep(findings.swept)).items():
        picture.save(folder / f"{name}.png", optimize=True)
    likeness_picture(findings.likeness).save(folder / "likeness.png")
    figure(findings).save(folder / "figure.png", optimize=True)
    for result in findings.transfers:
        frames = side_by_side(labelled(result))
        frames[0].save(folder / f"{result.pair.name}.png", optimize=True)
        write_mp4(frames, folder / f"{result.pair.name}.mp4")
    write_mp4(structure.animation(findings.structure[SOURCE].shown, edge=_SMALL), folder / "steps.mp4", fps=2)
    found = as_json(findings, seconds)
    (folder / "paper.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    page = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True).get_template("paper.html")
    (folder / "index.html").write_text(page.render(found=found, tables=tables(found)), encoding="utf-8")
    return found


def as_json(findings: Findings, seconds: float) -> dict[str, Any]:
    """All figures and verdicts."""
    swept, judged, shown = findings.swept, findings.verdicts(), findings.structure[SOURCE].shown
    return {
        "seeds": list(findings.seeds),
        "settings": findings.settings | {"seconds": round(seconds, 1)},
        "tally": tally(judged.values()),
        "verdicts": {name: verdict.as_json() for name, verdict in judged.items()},
        "map": title(shown.run, shown.view),
        "structure": summary(findings.structure[SOURCE].observed),
        "patterns": findings.patterns,
        "likeness": {name: likeness.as_json() for name, likeness in findings.likeness.items()},
        "drawn": {name: round(value, 3) for name, value in findings.drawn.items()},
        "transfer": transfer_report.as_json(findings.transfers, seconds, str(findings.settings["device"])),
        "layers": {
            "seeds": list(swept.seeds),
            "shares": [[round(value, 4) for value in values] for values in swept.shares],
            "means": [round(value, 4) for value in swept.means()],
            "first seed": swept.result.as_dict(),
        },
        "seconds": round(seconds, 1),
    }


def tables(found: dict[str, Any]) -> dict[str, list[list[str]]]:
    """The page's tables: of each, the heads, then the rows, as text."""
    return {
        "maps": _map_rows(found),
        "likeness": _likeness_rows(found["likeness"]),
        "transfer": [list(transfer_report.columns()), *transfer_report.rows(found["transfer"])],
        "layers": _layer_rows(found["layers"]),
    }


def _map_rows(found: dict[str, Any]) -> list[list[str]]:
    summary = found["structure"]
    uniform = summary["uniform"]
    rows = [["layer", "same frame", "same place ± 1", *PLACES, "entropy"]]
    for layer, row in summary["layers"].items():
        weights = [f"{found['patterns'][layer][name]:.2f} ×" for name in PLACES]
        masses = [f"{row[name]:.0%}" for name in ("same_frame", "same_place")]
        rows.append([str(layer), *masses, *weights, f"{row['entropy_share']:.0%}"])
    masses = [f"{uniform[name]:.0%}" for name in ("same_frame", "same_place")]
    return [*rows, ["no preference", *masses, *["1.00 ×"] * len(PLACES), "100%"]]


def _likeness_rows(likeness: dict[str, Any]) -> list[list[str]]:
    """The last column: in how many heads of all layers the cosine is greater than that with another seed."""
    baseline = torch.tensor(likeness[OTHER_SEED]["measured"]["cosine"])
    rows = [["the source's maps and those of", *MEASURES, "cosine, tokens shuffled", "nearer than another seed"]]
    for name, one in likeness.items():
        cosines = torch.tensor(one["measured"]["cosine"])
        nearer = f"{int((cosines > baseline).sum())} of {cosines.numel()} heads" if name != OTHER_SEED else "–"
        measured = [f"{one['means']['measured'][measure]:.3f}" for measure in MEASURES]
        rows.append([name, *measured, f"{one['means']['shuffled']['cosine']:.3f}", nearer])
    return rows


def _layer_rows(layers: dict[str, Any]) -> list[list[str]]:
    """Shares are means over seeds, with the range if there are several; the rest is the first seed's."""
    result, several = layers["first seed"], len(layers["seeds"]) > 1
    more = list(result["plain"]["more"])
    spread = ["range of seeds"] if several else []
    rows = [["takes the source's maps", "nearer, px", *spread, "share, edges", *LIKENESS, *more]]

    def cells(to_source: dict[str, float], others: dict[str, float]) -> list[str]:
        scores = [_likeness(name, to_source[name]) for name in LIKENESS]
        return scores + [f"{others[name]:.1f}" for name in more]

    blank = ["–"] * (3 if several else 2)
    rows.append(["none (plain target)", *blank, *cells(result["plain"]["to_source"], result["plain"]["more"])])
    for row, mean, values in zip(result["rows"], layers["means"], layers["shares"], strict=True):
        spread = [f"{min(values):.2f} to {max(values):.2f}"] if several else []
        shares = [_two(mean), *spread, _two(row["share"])]
        rows.append([row["label"], *shares, *cells(row["to_source"], row["more"])])
    return rows


def _likeness(name: str, value: float | None) -> str:
    """A score of `scores.LIKENESS`; None: it could not be measured."""
    return "–" if value is None else f"{value:.1f}" if name == "psnr" else f"{value:.3f}"


def _two(value: float) -> str:
    """Two digits, never -0.00."""
    return f"{round(value, 2) + 0:.2f}"


def likeness_picture(likeness: dict[str, Likeness]) -> Image.Image:
    """The measures layer by layer: prompts that keep the object, or change it, another seed, shuffled tokens."""
    same = [name for name, change in CHANGES.items() if change != "object"]
    other = [name for name in CHANGES if name not in same]
    panels = {}
    for name, meaning in MEASURES.items():

        def heads(names: Sequence[str], kind: str = "measured", name: str = name) -> torch.Tensor:
            return torch.cat([getattr(likeness[one], kind)[name] for one in names], dim=1)

        panels[meaning.partition(",")[0]] = {
            f"same object ({', '.join(same)})": heads(same),
            f"another object ({', '.join(other)})": heads(other),
            "same prompt, another seed": heads([OTHER_SEED]),
            "tokens shuffled": heads(list(likeness), "shuffled"),
        }
    layers = next(iter(likeness.values())).layers
    return pictures.likeness_picture(panels, layers, "The source's maps and others (mean and range of heads)")


def figure(findings: Findings) -> Image.Image:
    """The picture of docs/paper.md: a map beside the sweep's bars."""
    left = structure.whole(findings.structure[SOURCE].shown, edge=_SMALL)
    right = sweep_pictures.bars(findings.swept.result, f"a layer at a time: {SWEPT}", size=(420, left.height))
    both = Image.new("RGB", (left.width + right.width, left.height), "white")
    both.paste(left, (0, 0))
    both.paste(right, (left.width, 0))
    return both


def _maps(findings: Findings) -> dict[str, Image.Image]:
    found = findings.structure[SOURCE]
    return {
        "map": structure.whole(found.shown),
        "band": structure.band(found),
        "frames": structure.per_frame(found.observed, found.shown.view),
        "locality": structure.decay(found.observed),
    } | _prompts(findings)


def _prompts(findings: Findings) -> dict[str, Image.Image]:
    """The same layer's map for each prompt of SHOWN, in one colour scale."""
    shown = {name: findings.structure[name].shown for name in SHOWN}
    maps = {name: one.maps[one.view.key.evaluation] for name, one in shown.items()}
    high = float(torch.stack(list(maps.values())).quantile(0.999))
    grid = shown[SOURCE].run.grid
    prompts = {SOURCE: findings.transfers[0].pair.source} | {r.pair.name: r.pair.target for r in findings.transfers}
    return {
        f"map-{name}": pictures.map_picture(weights, grid, str(prompts[name]), limits=(high * 1e-4, high), edge=_SMALL)
        for name, weights in maps.items()
    }


def _sweep(swept: Swept) -> dict[str, Image.Image]:
    return {"bars": sweep_pictures.bars(swept.result), "sheet": sweep_pictures.sheet(swept.result, swept.clips)}

"""Makes the published profiles, and the figures of real_wan.md: `python tools/real_wan.py [FOLDER]`.

FOLDER holds the CSV files of the source distribution of `sparsevideo` 0.1.0 (see vdit_core/sparse/presets/NOTICE):

    pip download --no-deps --no-binary :all: sparsevideo==0.1.0
    tar xf sparsevideo-0.1.0.tar.gz     # FOLDER: sparsevideo-0.1.0/src/sparsevideo/methods/svoo/sparsity_profiles

With it the profiles and what depends on single steps (real_wan_steps.json) are made anew; without it pictures and
tables are made from the profiles that ship. Tables are printed, for the page.
"""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from vdit_core.call import ModelSignature
from vdit_core.ranks import rank_correlation
from vdit_core.reporting.tables import markdown
from vdit_core.selection import Indices
from vdit_core.sparse import presets
from vdit_core.sparse.density_statistics import changes, explained
from vdit_core.sparse.density_table import DensityTable, profile_of, read

DOCS = Path(__file__).parents[1] / "docs"
STEPS = DOCS / "real_wan_steps.json"
NEAR_ZERO = 0.001
_1_3B, _14B = ModelSignature(30, 12, 128), ModelSignature(40, 40, 128)

#: Each preset's file at the source, the shape, and the steps of it, counted from 0.
SOURCES = {
    "Wan2.1 1.3B T2V": ("sparsity_wan_1.3B_t2v.csv", _1_3B, "all"),
    "Wan2.1 14B T2V": ("sparsity_wan_14B_t2v.csv", _14B, "all"),
    "Wan2.1 14B I2V": ("sparsity_wan_14B_i2v.csv", _14B, "all"),
    "Wan2.2 A14B T2V high noise": ("sparsity_wan22_A14B_t2v.csv", _14B, "0-11"),
    "Wan2.2 A14B T2V low noise": ("sparsity_wan22_A14B_t2v.csv", _14B, "12-39"),
    "Wan2.2 A14B I2V high noise": ("sparsity_wan22_A14B_i2v.csv", _14B, "0-9"),
    "Wan2.2 A14B I2V low noise": ("sparsity_wan22_A14B_i2v.csv", _14B, "10-39"),
}


def picture(name: str) -> Path:
    """The file of a preset's picture."""
    return DOCS / "images" / f"real_wan_{presets.path_of(name).stem.replace('.', '')}.png"


def make_profiles(folder: Path) -> None:
    """The presets' files, and the figures of single steps."""
    tables: dict[str, DensityTable] = {}
    for name, (file, model, steps) in SOURCES.items():
        table = tables.setdefault(file, read(folder / file, model))
        chosen = Indices(steps).resolve(len(table.steps), "step")
        measured = {
            "source": "sparsevideo 0.1.0, https://pypi.org/project/sparsevideo/0.1.0/",
            "file": f"src/sparsevideo/methods/svoo/sparsity_profiles/{file}",
            "copyright": "2026 Jiayi Luo, Beihang University & Zhongguanchun Academy",
            "license": "Apache-2.0",
            "changed": "mean over steps, four decimals",
            "steps": f"{table.steps[chosen[0]]}-{table.steps[chosen[-1]]} of {len(table.steps)}",
        }
        profile_of([table], model, Indices(steps), name=name, measured=measured).save(presets.path_of(name))
    found: dict[str, object] = {file: _of_steps(table) for file, table in tables.items()}
    large = {file: table.densities.mean(0) for file, table in tables.items() if table.densities.shape[1] == _14B.layers}
    found["between"] = {
        f"{one} ~ {other}": rank_correlation(large[one], large[other])
        for one, other in itertools.combinations(large, 2)
    }
    STEPS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _of_steps(table: DensityTable) -> dict[str, object]:
    densities = table.densities
    jump = max(changes(densities), key=lambda change: change.times)
    around = changes(densities)[jump.after - 1 : jump.after + 2 : 2]
    return {
        "steps": len(densities),
        "explained": asdict(explained(densities)),
        "largest_change": asdict(jump) | {"before_and_behind": [change.distance for change in around]},
        "first_mean": densities[0].mean(),
        "last_mean": densities[-1].mean(),
        "step_10_and_last": rank_correlation(densities[9], densities[-1]),
        "first_and_last": rank_correlation(densities[0], densities[-1]),
    }


def tables() -> list[str]:
    """All tables of the page."""
    return [_models(), _layers(), _near_zero(), _alike(), _by_step(), _experts()]


def _models() -> str:
    rows = []
    for name in presets.NAMES:
        profile = presets.load(name)
        needed = profile.table()
        figures = (needed.mean(), np.median(needed), (needed > 0.5).mean(), (needed < 0.05).mean())
        rows.append([name, str(profile.measured["steps"]), *(f"{100 * figure:.1f} %" for figure in figures)])
    heads = ("model", "steps of the table", "mean", "median", "heads above 50 %", "heads below 5 %")
    return markdown(heads, rows)


def _layers() -> str:
    rows = []
    for name in presets.NAMES:
        means = presets.load(name).table().mean(1)
        falling = [int(layer) for layer in np.argsort(-means, kind="stable")]
        cells = (", ".join(f"{layer} ({means[layer]:.0%})" for layer in some) for some in (falling[:6], falling[-3:]))
        rows.append([name, *cells])
    return markdown(("model", "densest layers (mean of their heads)", "sparsest layers"), rows)


def _near_zero() -> str:
    rows = []
    for name in presets.NAMES:
        counts = (presets.load(name).table() < NEAR_ZERO).sum(1)
        by_layer = ", ".join(f"{layer}: {counts[layer]}" for layer in counts.nonzero()[0])
        rows.append([name, str(counts.sum()), by_layer])
    return markdown(("model", "heads below 0.1 %", "layer: how many"), rows)


def _alike() -> str:
    names = [name for name in presets.NAMES if "14B" in name]
    short = [name.replace(" A14B", "").replace(" 14B", "").replace(" noise", "") for name in names]
    loaded = [presets.load(name).table() for name in names]
    rows = [
        [label, *(f"{rank_correlation(one, other):.3f}" for other in loaded)]
        for label, one in zip(short, loaded, strict=True)
    ]
    return markdown(("", *short), rows)


def _by_step() -> str:
    rows = []
    for file, found in _figures():
        part = found["explained"]
        shares = [f"{100 * part[of]:.1f} %" for of in ("head", "layer", "step")]
        means = f"{100 * found['first_mean']:.1f} → {100 * found['last_mean']:.1f} %"
        alike = [f"{found[of]:.2f}" for of in ("step_10_and_last", "first_and_last")]
        rows.append([_model(file), *shares, means, *alike])
    heads = ("model", "layer and head", "layer", "step", "mean, first → last step", "step 10 ~ last", "first ~ last")
    return markdown(heads, rows)


def _experts() -> str:
    rows = []
    for file, found in _figures():
        change = found["largest_change"]
        before, behind = change["before_and_behind"]
        where = f"{change['after'] + 1} → {change['after'] + 2} of {found['steps']}"
        figures = (f"{change['distance']:.4f}", f"{before:.4f}, {behind:.4f}", f"{change['times']:.1f}")
        rows.append([_model(file), where, *figures, f"{change['correlation']:.3f}"])
    heads = ("model", "steps", "distance", "of the changes beside it", "times", "rank correlation")
    return markdown(heads, rows)


def _figures() -> list[tuple[str, dict[str, Any]]]:
    """By file, what depends on single steps."""
    found = json.loads(STEPS.read_text(encoding="utf-8"))
    return [(file, figures) for file, figures in found.items() if file != "between"]


def _model(file: str) -> str:
    """What the tables call a file: its model, without an expert."""
    name = next(name for name, source in SOURCES.items() if source[0] == file)
    return name.removesuffix(" high noise")


def draw() -> None:
    """The pictures, of all presets."""
    from vdit_core.sparse.pictures import needed_by

    for name in presets.NAMES:
        needed_by(presets.load(name)).save(picture(name), optimize=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        make_profiles(Path(sys.argv[1]))
        presets.load.cache_clear()
    draw()
    print("\n\n".join(tables()))

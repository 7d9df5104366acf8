"""The figures of maps, layer by layer, with their standard errors: locality, entropy, strongest keys."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..reporting.tables import markdown
from . import distance
from .estimate import Estimate
from .needed import NeededKeys
from .observer import Observed
from .statistics import MapStatistics
from .wanted import STRONGEST

_FIGURES: dict[str, Callable[[MapStatistics], Estimate]] = {
    "same_frame": lambda found: found.temporal.map(lambda x: x[..., 0]),
    "same_place": lambda found: found.spatial.map(lambda x: x[..., :2].sum(-1)),
    "entropy": lambda found: found.entropy,
    "strongest": lambda found: found.top.map(lambda x: x[..., found.wanted.top.index(STRONGEST)]),
    "needed": lambda found: found.needed,
    "largest_column_mass": lambda found: found.largest,
}


def summary(observed: Observed) -> dict[str, Any]:
    """The figures of each layer, means over heads, samples, evaluations and branches.

    same_frame: the mass on keys of the query's own frame. same_place: on keys at most one token away in the frame, in
    any frame. Both also for a map without preference. entropy: nats, and as a share of the largest possible. strongest:
    the mass on the strongest 10 % of a query's keys. needed: the share of the keys that hold 95 % of a query's
    attention; needed_by_head: the same of each head. largest_column_mass: the most that a single key gets, 1 is
    uniform. text: the share of the attention that went to text beside the grid, if there is any. errors: of those that
    are estimates, an upper bound of the standard error: maps share their sampled queries, so all that is certain is
    that a mean's error is no larger than the mean of the errors.
    """
    grid = observed.run.grid
    in_time, in_space = (distance.uniform(table(grid), grid) for table in (distance.temporal, distance.spatial))
    most = max(math.log(grid.tokens), 1e-9)
    layers = {}
    for layer in observed.layers:
        found = {name: _mean(observed.of_layer(layer), read) for name, read in _FIGURES.items()}
        found["entropy_share"] = found["entropy"].map(lambda x: x / most)
        if all(call.text is not None for call in observed.of_layer(layer)):
            found["text"] = _mean(observed.of_layer(layer), lambda call: Estimate(_text(call)))
        layers[layer] = {name: round(float(figure.value), 5) for name, figure in found.items()} | {
            "errors": {
                name: round(float(figure.error), 5) for name, figure in found.items() if figure.error is not None
            }
        }
    first = next(iter(observed.calls.values()))
    return {
        "grid": str(grid),
        "queries": "all" if first.exact else first.queries,
        "top_queries": "all" if first.top_queries == grid.tokens else first.top_queries,
        "tokens": grid.tokens,
        "maps": len(observed.calls) * len(observed.heads) * observed.run.samples,
        "uniform": {"same_frame": round(float(in_time[0]), 5), "same_place": round(float(in_space[:2].sum()), 5)},
        "layers": layers,
        "needed_by_head": NeededKeys.of(observed).as_json(),
    }


def _text(found: MapStatistics) -> Tensor:
    assert found.text is not None
    return found.text


def _mean(calls: Sequence[MapStatistics], read: Callable[[MapStatistics], Estimate]) -> Estimate:
    """Over all maps of some calls: 0-D."""
    figures = [read(found) for found in calls]
    value = torch.stack([figure.value.double().mean() for figure in figures]).mean()
    errors = [figure.error.double().mean() for figure in figures if figure.error is not None]
    return Estimate(value, torch.stack(errors).mean() if errors else None)


def as_text(found: dict[str, Any]) -> str:
    """`summary` as a table (Markdown), and below it of what the figures are."""
    uniform = found["uniform"]
    heads = ["layer", "same frame", "same place", "entropy, of the largest", "strongest 10 %"]
    mass = found["needed_by_head"]["mass"]
    heads += [f"keys for {100 * mass:g} %", "largest column mass"]
    joint = all("text" in row for row in found["layers"].values())
    heads += ["to text or guides"] * joint
    rows = []
    for layer, row in found["layers"].items():

        def share(name: str, row: dict[str, Any] = row) -> str:
            error = row["errors"].get(name)
            return f"{row[name]:.0%}" if error is None else f"{row[name]:.0%} ± {error:.1%}"

        shares = [share(name) for name in ("same_frame", "same_place", "entropy_share", "strongest")]
        off = row["errors"].get("needed")
        shares.append(f"{row['needed']:.1%}" + ("" if off is None else f" ± {off:.1%}"))
        error = row["errors"].get("largest_column_mass")
        largest = f"{row['largest_column_mass']:.1f}" + ("" if error is None else f" ± {error:.1f}")
        rows.append([str(layer), *shares, f"{largest} x uniform", *([f"{row['text']:.0%}"] if joint else [])])
    even = [f"{uniform[name]:.0%}" for name in ("same_frame", "same_place")]
    rows.append(["(uniform)", *even, "100%", "10%", f"{mass:.1%}", "1.0", *[""] * joint])
    return f"{markdown(heads, rows, aligned=True)}\n\n{of_what(found)}"


def of_what(found: dict[str, Any]) -> str:
    """In a sentence or two, what the figures of a `summary` were computed of."""
    text = f"{found['maps']} maps on {found['grid']}; {of_queries(found)} of each"
    if any("text" in row for row in found["layers"].values()):
        text = f"Of the grid's own part of each map. {text}"
    if found["top_queries"] != found["queries"]:
        text += f", for the strongest keys {found['top_queries']}"
    if found["queries"] == "all":
        return text + ("." if found["top_queries"] == "all" else "; ± a standard error, at most.")
    return text + "; ± a standard error, at most. The largest of estimates tends to be too large."


def of_queries(found: dict[str, Any]) -> str:
    """Of how many queries the figures of a `summary` are, in words."""
    return "all queries" if found["queries"] == "all" else f"{found['queries']:,} of {found['tokens']:,} queries"

"""How alike the attention maps of two recordings are, with what to hold it against.

The paper says that maps are alike across prompts. Alike compared to what? Two baselines answer: the same prompt from
another seed, which is one more comparison of the same kind, and the same map with its tokens shuffled, which keeps how
sharp a map is and forgets where it looks. How sharp it is, is compared besides: by the keys that each head needs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..attention.reference import rows
from ..recording.store import AttentionStore, Key, StoreError
from ..recording.store.query import choose, queries_and_keys
from ..selection import Selection
from . import pictures
from .needed import NeededKeys, Published, needed_keys, ranking
from .sums import heads_together

#: Name of a measure: what it is. The first two are 1 for equal maps, the last one 0.
MEASURES = {
    "cosine": "cosine similarity, of the maps as vectors",
    "correlation": "Pearson correlation, of the weights",
    "divergence": "Jensen-Shannon divergence (bits), mean over the queries' rows",
}


@dataclass(frozen=True)
class Likeness:
    """Of each layer and head, means over the compared evaluations, branches and samples; float64 (layers, heads).

    shuffled: the same measures with the second map's tokens in a random order. needed: the keys that the heads of
    either recording need.
    """

    layers: tuple[int, ...]
    heads: tuple[int, ...]
    pairs: int
    measured: dict[str, Tensor]
    shuffled: dict[str, Tensor]
    needed: tuple[NeededKeys, NeededKeys]

    def means(self) -> dict[str, dict[str, float]]:
        """Over all layers and heads."""
        return {
            kind: {name: round(float(values.mean()), 4) for name, values in getattr(self, kind).items()}
            for kind in ("measured", "shuffled")
        }

    def as_json(self) -> dict[str, Any]:
        tables = {
            kind: {name: values.double().round(decimals=5).tolist() for name, values in getattr(self, kind).items()}
            for kind in ("measured", "shuffled")
        }
        first, second = self.needed
        needed = {
            "mass": first.mass, "rank_correlation": _rounded(first.rank_correlation(second)),
            "first": first.values.round(5).tolist(), "second": second.values.round(5).tolist(),
        }  # fmt: skip
        found = {"layers": self.layers, "heads": self.heads, "pairs": self.pairs, "means": self.means()}
        return found | tables | {"needed": needed}


def compare_maps(
    q: Tensor, k: Tensor, other_q: Tensor, other_k: Tensor, on_chunk: Callable[[], None] | None = None
) -> dict[str, Tensor]:
    """The measures of two maps, streamed; tensors are (heads, tokens, head_dim). Returns float64 (heads,) each.

    on_chunk: called after each chunk of rows, to raise an interrupt.

    Every row of a map sums to 1, so its mean weight is 1 / tokens; with sums over all weights a, b of two maps

        cosine = sum ab / sqrt(sum a^2 sum b^2)
        correlation = (sum ab - 1) / sqrt((sum a^2 - 1) (sum b^2 - 1)), 0 if a map is uniform
        divergence = mean over rows of H((a + b) / 2) - (H(a) + H(b)) / 2
    """
    products, squares, other_squares, divergence = sums = torch.zeros(4, len(q), dtype=torch.float64, device=q.device)
    together = heads_together(k.shape[1])
    for head in range(0, len(q), together):
        some = slice(head, head + together)
        chunks = zip(*(rows(a[some], b[some]) for a, b in ((q, k), (other_q, other_k))), strict=True)
        for (_, a), (_, b) in chunks:
            entropy, *each = (torch.special.entr(x).sum((1, 2), dtype=torch.float64) for x in ((a + b) / 2, a, b))
            found = [x.sum((1, 2), dtype=torch.float64) for x in (a * b, a.square(), b.square())]
            sums[:, some] += torch.stack([*found, entropy - sum(each) / 2])
            if on_chunk:
                on_chunk()
    beyond = squares - 1, other_squares - 1  # of a uniform map 0, but for float32
    uniform = torch.minimum(*beyond) < 1e-5
    correlation = (products - 1) / (beyond[0] * beyond[1]).clamp(min=1e-10).sqrt()
    return {
        "cosine": products / (squares * other_squares).sqrt(),
        "correlation": correlation.masked_fill(uniform, 0.0),
        "divergence": (divergence / q.shape[1] / math.log(2)).clamp(min=0),
    }


def compare(
    first: AttentionStore,
    second: AttentionStore,
    selection: Selection | None = None,
    other_step: int | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    on_call: Callable[[], None] | None = None,
    on_chunk: Callable[[], None] | None = None,
) -> Likeness:
    """Compare the maps of two recordings, call by call.

    Args:
        selection: which calls of the first, and heads that both hold; the second must hold the same layers and
            branches.
        other_step: compare with this step of the second; None: with the step at the same noise level.
        seed: of the shuffled order. on_call: called after each call, to show progress. on_chunk: after each part of
            one, to raise an interrupt.

    Raises:
        StoreError: naming both sides, if grids, models or samples differ, they share no chosen head, or a call is not
            in the second.
        SelectionError: if the selection does not fit the recorded model.
    """
    selection = selection or Selection()
    heads = _check(first, second, selection)
    order = torch.randperm(first.header.grid.tokens, generator=torch.Generator().manual_seed(seed)).to(device)
    found: dict[int, list[tuple[dict[str, Tensor], dict[str, Tensor]]]] = {}
    needed: tuple[dict[int, list[Tensor]], ...] = {}, {}
    for key in choose(first, selection):
        mine = queries_and_keys(first, key, heads, device)
        theirs = queries_and_keys(second, _counterpart(second, key, other_step), heads, device)
        for q, k, other_q, other_k in zip(*mine, *theirs, strict=True):  # of each sample
            plain = compare_maps(q, k, other_q, other_k, on_chunk)
            mixed = compare_maps(q, k, other_q[:, order], other_k[:, order], on_chunk)
            found.setdefault(key.layer, []).append((plain, mixed))
            for counted, pair in zip(needed, ((q, k), (other_q, other_k)), strict=True):
                counted.setdefault(key.layer, []).append(needed_keys(*pair, first.header.grid, on_chunk=on_chunk))
        if on_call:
            on_call()
    layers = tuple(sorted(found))

    def table(kind: int) -> dict[str, Tensor]:
        return {
            name: torch.stack([torch.stack([pair[kind][name] for pair in found[i]]).mean(0) for i in layers]).cpu()
            for name in MEASURES
        }

    keys = [torch.stack([torch.stack(calls[i]).mean(0) for i in layers]).cpu().numpy() for calls in needed]
    one, other = (NeededKeys(layers, heads, values) for values in keys)
    return Likeness(layers, heads, sum(map(len, found.values())), table(0), table(1), (one, other))


def _check(first: AttentionStore, second: AttentionStore, selection: Selection) -> tuple[int, ...]:
    """The chosen heads that both hold."""
    a, b = first.header, second.header
    for name, left, right in (("model", a.model, b.model), ("grid", a.grid, b.grid), ("samples", a.samples, b.samples)):
        if left != right:
            raise StoreError(f"The recordings differ in {name}: {left} and {right}. Record both alike to compare them.")
    chosen = selection.heads.resolve(a.model.heads, "head")
    shared = tuple(head for head in chosen if head in a.heads and head in b.heads)
    if not shared:
        raise StoreError(
            f"None of heads {selection.heads} is in both recordings: they hold {list(a.heads)} and {list(b.heads)}."
        )
    return shared


def _counterpart(store: AttentionStore, key: Key, step: int | None) -> Key:
    """The call of the second store that one of the first is compared with."""
    levels = store.header.sigmas
    if step is not None and not 0 <= step < len(levels):
        raise StoreError(
            f"Step {step} is not one of the second recording's {len(levels)} steps, 0 to {len(levels) - 1}."
        )
    sigma = key.evaluation.sigma if step is None else levels[step]
    found = store.find(sigma, key.evaluation.visit)
    other = None if found is None else Key(found, key.branch, key.layer)
    if other is None or other not in store:
        raise StoreError(
            f"Layer {key.layer}, branch {key.branch}, noise level {sigma:.4f} is not in the second recording. "
            f"It holds {store.summary()}."
        )
    return other


def picture(other: Likeness, baseline: Likeness | None = None) -> Image.Image:
    """The measures layer by layer, with the shuffled maps and the baseline recording beside them."""
    panels = {}
    for name, meaning in MEASURES.items():
        pairs = {"the two recordings": other.measured[name]}
        if baseline is not None:
            pairs["first and baseline"] = baseline.measured[name]
        panels[meaning.partition(",")[0]] = pairs | {"tokens shuffled": other.shuffled[name]}
    return pictures.likeness_picture(
        panels, other.layers, "How alike are the attention maps? (mean and range of heads)"
    )


def verdict(other_prompt: Likeness, other_seed: Likeness | None = None, *, published: Published | None = None) -> str:
    """The finding in a few sentences. published: a measurement of the same model, if there is one."""
    means = other_prompt.means()
    text = (
        f"Cosine similarity of the two recordings' maps: {means['measured']['cosine']:.3f}, mean of "
        f"{len(other_prompt.layers)} layers x {len(other_prompt.heads)} heads. With the tokens of one shuffled: "
        f"{means['shuffled']['cosine']:.3f}."
    )
    if other_seed is not None:
        seeds = other_seed.means()["measured"]["cosine"]
        closer = int((other_prompt.measured["cosine"] > other_seed.measured["cosine"]).sum())
        text += (
            f" Against the baseline recording (such as another seed): {seeds:.3f}; the two recordings are closer "
            f"than that in {closer} of {other_prompt.measured['cosine'].numel()} layer-heads."
        )
    ranked = {"the two recordings": other_prompt.needed[0].rank_correlation(other_prompt.needed[1])}
    if other_seed is not None:
        ranked["first and baseline"] = other_seed.needed[0].rank_correlation(other_seed.needed[1])
    if published is not None:
        ranked |= {
            f"{name} and {published.name}, published": one.rank_with(published)
            for name, one in zip(("first", "second"), other_prompt.needed, strict=True)
        }
    return f"{text} {ranking(ranked, other_prompt.needed[0].mass)}"


def as_json(other: Likeness, baseline: Likeness | None = None, *, published: Published | None = None) -> str:
    """Everything that was found, as JSON."""
    found: dict[str, Any] = {"verdict": verdict(other, baseline, published=published), "compared": other.as_json()}
    if baseline is not None:
        found["baseline"] = baseline.as_json()
    if published is not None:
        first, second = (_rounded(one.rank_with(published)) for one in other.needed)
        found["published"] = {"name": published.name, "rank_correlation": {"first": first, "second": second}}
    return json.dumps(found, indent=1)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)

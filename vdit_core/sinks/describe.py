"""Findings in plain words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean, median

import numpy as np

from ..coverage import groups, ranges
from .detect import RATIO, Findings, Sink


def describe(findings: Findings) -> str:
    """What was found, in a few paragraphs (Markdown)."""
    parts = [_found(findings), _limits(findings)]
    if findings.sinks:
        parts += [_where(findings), _kind(findings)]
    if findings.joint:
        parts.append(
            "Text or guides attend beside the video here: all shares are of the attention among the video's tokens."
        )
    return "\n\n".join([*parts, _language_models(findings)])


def summary(findings: Findings) -> str:
    """What was found, in a line."""
    text = f"strongest key {findings.peak.max():.0f} x uniform"
    if not findings.sinks:
        return f"no sinks; {text}"
    found = f"{len(findings.tokens())} {called(findings)} in {len(findings.sink_heads())} heads"
    return f"{found}; {text}" if called(findings) == "sinks" else f"{found}, no sinks; {text}"


def called(findings: Findings) -> str:
    """Keys that were found because the ratio was set low, and that are far from a sink's, are called what they are."""
    return "sinks" if any(sink.ratio >= RATIO for sink in findings.sinks) else "strongest keys"


def _found(findings: Findings) -> str:
    count = len(findings.layers) * len(findings.heads)
    layer, head = np.unravel_index(int(findings.peak.argmax()), findings.peak.shape)
    most = float(findings.peak.max())
    peak = (
        f"The strongest key takes {most:.0f} times a key's uniform share ({most / findings.grid.tokens:.1%} of all "
        f"attention), in layer {findings.layers[layer]}, head {findings.heads[head]}."
    )
    if not findings.sinks:
        return (
            f"No sinks: in none of {count} heads does a key take {findings.ratio:g} times its uniform share from "
            f"nearly all queries. {peak}"
        )
    heads = findings.sink_heads()
    layers = ranges([layer for layer, _ in heads])
    return (
        f"{called(findings).capitalize()} in {len(heads)} of {count} heads, in layers {layers}, on "
        f"{len(findings.tokens())} tokens. Each takes at least {findings.ratio:g} times its uniform share from nearly "
        f"all queries. {peak}"
    )


def _limits(findings: Findings) -> str:
    named = ", ".join(f"{share:.0%} of heads above {limit:g}" for limit, share in findings.above.items())
    return (
        f"Largest share of all attention on one key: {named}. Half of all attention goes to {findings.half.min():.0f} "
        f"to {findings.half.max():.0f} of {findings.grid.tokens} keys, by head."
    )


def _where(findings: Findings) -> str:
    return " ".join(
        _in_layers([sink for sink in findings.sinks if sink.layer in layers], layers, len(findings.heads))
        for layers in groups(sorted({sink.layer for sink in findings.sinks}))
    )


def _in_layers(sinks: Sequence[Sink], layers: Sequence[int], heads_each: int) -> str:
    masses: dict[tuple[int, int], float] = {}
    for sink in sinks:
        masses[sink.layer, sink.head] = masses.get((sink.layer, sink.head), 0.0) + sink.mass
    tokens = len({sink.token for sink in sinks})
    mean, most = fmean(masses.values()), max(masses.values())
    many = f"put {mean:.0%} of their attention (mean; at most {most:.0%})"
    return (
        f"Layer{'s' if len(layers) > 1 else ''} {ranges(layers)}: {len(masses)} of {len(layers) * heads_each} heads "
        f"{many if len(masses) > 1 else f'puts {mean:.0%} of its attention'} on {tokens} "
        f"token{'s' if tokens > 1 else ''}{_frames(sinks)}."
    )


def _frames(sinks: Sequence[Sink]) -> str:
    """As ", 11 of them in frame 0: (row 3, column 7) ..." of distinct tokens."""
    places = {sink.token: sink.place for sink in sinks if sink.place is not None}
    if not places:
        return ", none of which lies on the grid"
    (frame, count), *_ = Counter(place[0] for place in places.values()).most_common(1)
    there = sorted(place for place in places.values() if place[0] == frame)
    named = ", ".join(f"(row {y}, column {x})" for _, y, x in there[:4])
    part = "" if len(places) == 1 else "all of them " if count == len(places) else f"{count} of them "
    return f", {part}in frame {frame}: {named}{' …' if count > 4 else ''}"


def _kind(findings: Findings) -> str:
    keys, values = ([getattr(sink, name) for sink in findings.sinks] for name in ("key_norm", "value_norm"))
    text = f"Their keys are {median(keys):.1f} times as long as the median key"
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return f"{text}; their values were not recorded."
    value = median(known)
    kind = (
        "so they hardly write anything: attention is parked there (a no-op)"
        if value < 0.5
        else "so they write as much as others do: heads broadcast what these tokens hold"
    )
    layers, heads = findings.layers, findings.heads
    common = [findings.common[layers.index(layer), heads.index(head)] for layer, head in findings.sink_heads()]
    return (
        f"{text}, their values {value:.1f} times, {kind}. Of these heads' output {median(common):.0%} lies along one "
        "direction, the same at all tokens."
    )


def _language_models(findings: Findings) -> str:
    """The picture known from language models beside what is here."""
    first = [sink for sink in findings.sinks if sink.token == findings.grid.prefix]
    here = f"here the first token is a sink in {len(first)} heads" if findings.sinks else "here there are none"
    return (
        "In language models a sink is the first token, with a large key and a small value, above 0.3 of a head's "
        f"attention; {here}, and {findings.above[0.3]:.0%} of heads have a key above 0.3."
    )

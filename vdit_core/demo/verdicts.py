"""What the demo model's numbers say of the paper's claims (arXiv 2504.10317): each verdict is a small function of them.

The bars that a number must pass are named here; every verdict's text tells the numbers themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

AGREES, PARTLY, DIFFERS, OPEN = "agrees", "agrees in part", "differs", "cannot be told"

#: A map is local if it puts this many times as much weight near a query as a map without preference would.
LOCAL = 1.5
#: "Keeps": at least this part of the way to the source. "Seen": in at least this share of clips.
HALF = 0.5
#: A layer "stays near the plain target" if it goes less than this part of the way to the source.
LITTLE = 0.1

#: Distances in px that no edit here changes by itself: where the object is, and what the camera does. Edges will not
#: do: snow draws its own. Nor size and height: another object has others.
PATH = ("x", "horizon", "pan")

#: Where a map's weight lies: mean weights of pairs of tokens, relative to a map without preference.
PLACES = ("diagonal", "stripes", "squares", "elsewhere")


@dataclass(frozen=True)
class Verdict:
    """state: AGREES, PARTLY, DIFFERS or OPEN. text: the numbers, in a sentence or two."""

    state: str
    text: str

    def as_json(self) -> dict[str, str]:
        return {"state": self.state, "text": self.text}


def local(layers: Mapping[int, Mapping[str, float]], uniform: Mapping[str, float]) -> Verdict:
    """Local in time and in space? From `structure.summary`: the mass in the same frame and at the same place."""
    names = {"same_frame": "the query's own frame", "same_place": "at most one token away, in any frame"}
    ratios = {name: {i: row[name] / uniform[name] for i, row in layers.items()} for name in names}
    passed = {name: sum(ratio >= LOCAL for ratio in ratios[name].values()) for name in names}
    both = sum(all(ratios[name][i] >= LOCAL for name in names) for i in layers)
    parts = []
    for name, words in names.items():
        least, most = (pick(layers, key=ratios[name].__getitem__) for pick in (min, max))
        parts.append(
            f"{words}: {layers[least][name]:.0%} of the weight (layer {least}) to {layers[most][name]:.0%} "
            f"(layer {most}), {uniform[name]:.0%} without preference, at least {LOCAL:g} times that in "
            f"{passed[name]} of {len(layers)} layers"
        )
    return Verdict(_all_or_some(both, len(layers)), _sentence("; ".join(parts)))


def pattern(layers: Mapping[int, Mapping[str, float]]) -> Verdict:
    """Diagonal, weaker stripes, a square per frame? Weights by PLACES for each layer."""
    striped = sum(w["diagonal"] > w["stripes"] > w["elsewhere"] for w in layers.values())
    squared = sum(w["squares"] > w["elsewhere"] for w in layers.values())
    both = sum(w["diagonal"] > w["stripes"] > w["elsewhere"] < w["squares"] for w in layers.values())
    mean = {name: sum(w[name] for w in layers.values()) / len(layers) for name in PLACES}
    return Verdict(
        _all_or_some(both, len(layers)),
        f"Against a map without preference, a token gives itself {mean['diagonal']:.1f} times the weight, its place in "
        f"other frames {mean['stripes']:.1f} times, the rest of its frame {mean['squares']:.1f} times, and everything "
        f"else {mean['elsewhere']:.2f} times (mean of layers). A diagonal with weaker stripes beside it is there in "
        f"{striped} of {len(layers)} layers, squares in {squared}.",
    )


def alike(prompts: Mapping[str, float], other_seed: float, shuffled: float) -> Verdict:
    """Alike across prompts? Cosines of the source's maps with each prompt's, another seed's, and shuffled ones."""
    beyond = [name for name, cosine in prompts.items() if cosine > max(other_seed, shuffled)]
    real = [name for name, cosine in prompts.items() if cosine > shuffled]
    state = AGREES if len(beyond) == len(prompts) else PARTLY if len(real) == len(prompts) else DIFFERS
    named = ", ".join(f"{name} {cosine:.3f}" for name, cosine in prompts.items())
    closer = "All" if len(beyond) == len(prompts) else ", ".join(beyond) or "None"
    return Verdict(
        state,
        f"Cosine with the source's maps: {named}; the same prompt from another seed {other_seed:.3f}, tokens shuffled "
        f"{shuffled:.3f}. Nearer than another seed: {closer.lower()}.",
    )


def removed(scores: Mapping[str, Mapping[str, float]], px: Sequence[str] = PATH) -> float:
    """The part of the plain target's distance to the source, summed over px, that the transfer takes away."""
    plain, transfer = (sum(scores[kind][name] for name in px) for kind in ("plain", "transfer"))
    return 1 - transfer / plain if plain > 0 else 0.0


def kept(scores: Mapping[str, Mapping[str, float]], edit: str) -> Verdict:
    """Does the edited clip keep the source's cinematography, and show its edit?"""
    taken, seen = removed(scores), scores["transfer"][edit] >= HALF
    state = AGREES if taken >= HALF and seen else PARTLY if taken > 0 else DIFFERS
    return Verdict(state, f"{_nearer(taken)} {_seen(scores, edit)}")


def harder(
    scores: Mapping[str, Mapping[str, float]],
    others: Mapping[str, Mapping[str, Mapping[str, float]]],
    drawn: float,
    edit: str,
) -> Verdict:
    """Is another object harder than the other edits: less of the source's path kept, the object held in the old one's
    size, or not drawn? drawn: see `ignored`."""
    taken, ways = removed(scores), {name: removed(other) for name, other in others.items()}
    held, less = removed(scores, ["size"]), taken < min(ways.values())
    good = scores["transfer"][edit] >= HALF and drawn >= HALF
    state = AGREES if not good or (less and held >= LITTLE) else PARTLY if less or held >= LITTLE else DIFFERS
    named = ", ".join(f"{name} {other:.0%}" for name, other in ways.items())
    than = "less than of the easy edits" if less else "no less than of the easy edits"
    size = f"The object's size goes {held:.0%} of the way back to the source's" if held > 0 else "Its size is its own"
    return Verdict(state, f"{_nearer(taken)} That is {than} ({named}). {size}. {_drawn(drawn)} {_seen(scores, edit)}")


def ignored(scores: Mapping[str, Mapping[str, float]], drawn: float, edit: str) -> Verdict:
    """Do the source's maps make the model ignore the prompt?

    drawn: how strong the outlines within the object's place are, relative to the plain target's. The probe alone would
    not do: it calls a brown smear a dog.
    """
    plain, transfer = scores["plain"][edit], scores["transfer"][edit]
    judged = AGREES if transfer < HALF else PARTLY if drawn < HALF else DIFFERS
    return Verdict(
        judged if plain >= HALF else OPEN, f"{_drawn(drawn)} {_seen(scores, edit)} {_nearer(removed(scores))}"
    )


def layers(shares: Sequence[float]) -> Verdict:
    """Does one layer carry the source's structure while others carry none? A layer's share is its part of the way from
    the plain target to the source; below 0 it leads away."""
    falling = sorted(range(len(shares)), key=lambda i: -shares[i])
    first, typical = falling[0], median(shares)
    little = sorted(i for i in falling if abs(shares[i]) < LITTLE)
    ahead = shares[first] - typical
    if shares[first] >= HALF and typical < shares[first] / 2 and little:
        state = AGREES
    else:
        state = PARTLY if ahead >= LITTLE and little else DIFFERS
    second = f", then layer {falling[1]} with {_plain(shares[falling[1]])}" if len(falling) > 1 else ""
    least = ", ".join(f"{i} ({_plain(shares[i])})" for i in sorted(falling[-2:], key=lambda i: shares[i]))
    stay = f"stay layers {', '.join(map(str, little))}" if little else "stays no layer"
    return Verdict(
        state,
        f"Layer {first} alone goes {_plain(shares[first])} of the way to the source{second}; the median layer goes "
        f"{_plain(typical)}, so layer {first} is {_plain(ahead)} ahead of it. Least: {least}; near the plain target "
        f"(less than {LITTLE:g}) {stay}.",
    )


def tally(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """How many verdicts there are of each state that occurs."""
    states = [verdict.state for verdict in verdicts]
    return {state: states.count(state) for state in (AGREES, PARTLY, DIFFERS, OPEN) if state in states}


def _all_or_some(passed: int, count: int) -> str:
    return AGREES if passed == count else PARTLY if passed > count / 2 else DIFFERS


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _plain(value: float) -> str:
    """Two digits, never -0.00."""
    return f"{round(value, 2) + 0:.2f}"


def _nearer(taken: float) -> str:
    px = f"takes away {taken:.0%} of the distance" if taken >= 0 else f"adds {-taken:.0%} to the distance"
    return f"The transfer {px} to the source in px: of the object's place, the horizon and the camera's pan."


def _drawn(strength: float) -> str:
    smear = " (a smear)" if strength < HALF else ""
    return f"Outlines at the object are {strength:.0%} as strong as without the transfer{smear}."


def _seen(scores: Mapping[str, Mapping[str, float]], edit: str) -> str:
    plain, transfer = (scores[kind][edit] for kind in ("plain", "transfer"))
    return f"The probe sees the edit ({edit}) in {transfer:.0%} of clips, {plain:.0%} without the transfer."

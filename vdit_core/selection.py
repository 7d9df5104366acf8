"""The grammar by which every tool chooses layers, heads and steps.

    all          every index            early, middle, late    a third each
    none         nothing yet            0%-50%                 the first half
    3            one index              0-28/4                 every fourth from 0 to 28
    3-7          a range, both ends included

Terms are joined by commas. In a layer mask a term may carry a strength, "3-7:0.5"; of terms that name the same layer
the last one counts, so "all, 3:0" is every layer but 3. Where a model has several kinds of blocks, a term may name one
and then counts within it: "double 3-7", "single all".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .call import Run, Site
from .errors import VDiTError

_THIRDS = ("early", "middle", "late")
_TERM = re.compile(
    r"(?:(?P<kind>[a-z]+) )?"
    r"(?:(?P<word>all|none|early|middle|late)"
    r"|(?P<low>\d+)(?:-(?P<high>\d+)(?:/(?P<every>\d+))?)?"
    r"|(?P<from>\d+(?:\.\d+)?)%-(?P<to>\d+(?:\.\d+)?)%)",
    re.ASCII,
)


#: Of a model with several kinds of blocks each kind's name and number, in the order of the layers.
Kinds = tuple[tuple[str, int], ...]


class SelectionError(VDiTError, ValueError):
    """A selection that cannot be read, or that does not fit the model or run it is used on."""


@dataclass(frozen=True)
class Term:
    """One term of the grammar, without its strength."""

    text: str
    word: str | None = None
    low: int = 0
    high: int = 0
    every: int = 1
    share: tuple[float, float] | None = None
    kind: str | None = None

    @classmethod
    def parse(cls, text: str) -> Term:
        match = _TERM.fullmatch(text)
        if match is None:
            raise SelectionError(
                f"Cannot read {text!r}. Write for example: all, none, 3, 3-7, 0-28/4, 0%-50%, early, middle, late."
            )
        kind = match["kind"]
        if match["word"]:
            return cls(text, word=match["word"], kind=kind)
        if match["from"]:
            share = float(match["from"]) / 100, float(match["to"]) / 100
            if not share[0] <= share[1] <= 1:
                raise SelectionError(f"{text!r} is not a part of the whole: write it as low%-high%, at most 100%.")
            return cls(text, share=share, kind=kind)
        try:
            low, high = int(match["low"]), int(match["high"] or match["low"])
            every = int(match["every"] or 1)
        except ValueError:  # Python reads no number of more than 4300 digits
            raise SelectionError(f"{text[:12]!r}... is out of range: it is {len(text)} digits long.") from None
        if high < low:
            raise SelectionError(f"{text!r} runs backwards: write {high}-{low}.")
        if every < 1:
            raise SelectionError(f"{text!r}: the stride must be at least 1.")
        return cls(text, low=low, high=high, every=every, kind=kind)

    def resolve(self, count: int, what: str, kinds: Kinds = ()) -> range:
        if self.kind is None:
            return self._within(count, what)
        start = 0
        for kind, number in kinds:
            if kind == self.kind:
                found = self._within(number, f"{kind} {what}")
                return range(found.start + start, found.stop + start, found.step)
            start += number
        there = f"the kinds are {', '.join(kind for kind, _ in kinds)}" if kinds else f"its {what}s are of one kind"
        raise SelectionError(f"{self.text!r} names the kind {self.kind!r}, which is not in this model: {there}.")

    def _within(self, count: int, what: str) -> range:
        if self.share is not None:
            low, high = (sum(i / count < edge - 1e-9 for i in range(count)) for edge in self.share)
            return range(low, high)
        if self.word in _THIRDS:
            third = _THIRDS.index(self.word)
            return range(-(-third * count // 3), -(-(third + 1) * count // 3))
        if self.word:
            return range(count if self.word == "all" else 0)
        if self.high >= count:
            raise SelectionError(
                f"{what.capitalize()} {self.high} in {self.text!r} is out of range: "
                f"there are {count} {what}s, 0 to {count - 1}."
            )
        return range(self.low, self.high + 1, self.every)


def terms_of(text: str) -> list[str]:
    """The terms of a selection, without the spaces around them.

    Raises:
        SelectionError: if it is no text, or one of them is empty.
    """
    if not isinstance(text, str):
        raise SelectionError(f"A selection is text such as 'all' or '3-7', not {text!r}.")
    terms = [term.strip().lower() for term in text.split(",")]
    if not all(terms):
        raise SelectionError(f"{text!r} has an empty term. Write 'none' to select nothing, 'all' for everything.")
    return terms


@dataclass(frozen=True)
class Indices:
    """A set of layers, heads or steps, as text; see the module's grammar.

    Raises:
        SelectionError: at once if the text cannot be read.
    """

    text: str = "all"
    _parsed: tuple[Term, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_parsed", tuple(Term.parse(term) for term in terms_of(self.text)))

    def resolve(self, count: int, what: str, kinds: Kinds = ()) -> tuple[int, ...]:
        """The chosen indices out of 0 .. count - 1, rising; `what` (layer, head, step) is for messages.

        Raises:
            SelectionError: if an index is out of range, or a kind is not among these.
        """
        return tuple(sorted({i for term in self._parsed for i in term.resolve(count, what, kinds)}))

    def __str__(self) -> str:
        return self.text


def split_strength(term: str) -> tuple[str, float]:
    """A term of a mask without its ":strength", and that: 1 if it has none.

    Raises:
        SelectionError: if the strength cannot be read or is not within 0..1.
    """
    indices, colon, number = (part.strip() for part in term.partition(":"))
    if colon and not re.fullmatch(r"\d+(\.\d*)?|\.\d+", number, re.ASCII):
        raise SelectionError(f"Cannot read the strength {number!r} in {term!r}: write a number from 0 to 1.")
    strength = float(number) if colon else 1.0
    if strength > 1:
        raise SelectionError(f"Strength {number} in {term!r} is out of range: 0 (off) to 1 (full).")
    return indices, strength


def choose_branches(choice: str, branches: tuple[str, ...]) -> tuple[str, ...]:
    """The branches of a run that "all" or one's name chooses.

    Raises:
        SelectionError: if the run has no branch of that name.
    """
    if choice == "all":
        return branches
    if choice not in branches:
        raise SelectionError(
            f"There is no branch {choice!r} in this run: it has {', '.join(branches)}. "
            "(Without classifier-free guidance there is no uncond branch.)"
        )
    return (choice,)


@dataclass(frozen=True)
class LayerMask:
    """A strength from 0 (off) to 1 (full) per layer, as text: terms of the grammar, each with an optional ":strength".

    made_for: the number of layers of the model that the mask was drawn for, if it is known; another model is refused.

    Raises:
        SelectionError: at once if the text cannot be read or a strength is not within 0..1.
    """

    text: str = "all"
    made_for: int | None = None
    _parsed: tuple[tuple[Term, float], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parsed = []
        for term in terms_of(self.text):
            indices, strength = split_strength(term)
            parsed.append((Term.parse(indices), strength))
        object.__setattr__(self, "_parsed", tuple(parsed))

    @classmethod
    def of(cls, strengths: dict[int, float] | list[int], made_for: int | None = None) -> LayerMask:
        """The mask with these strengths (to six decimals), or with these layers at full strength.

        Raises:
            SelectionError: if a strength is not within 0..1.
        """
        if not isinstance(strengths, dict):
            strengths = dict.fromkeys(strengths, 1.0)
        terms = [f"{i}" if s == 1 else f"{i}:{s:.6f}".rstrip("0") for i, s in sorted(strengths.items()) if s != 0]
        return cls(", ".join(terms) or "none", made_for)

    def scaled(self, factor: float) -> LayerMask:
        """The mask with every strength multiplied by a factor from 0 to 1."""
        return LayerMask(", ".join(f"{term.text}:{s * factor:.6f}" for term, s in self._parsed), self.made_for)

    @property
    def names_kinds(self) -> bool:
        """Whether it fits only a model whose kinds of blocks it names."""
        return any(term.kind for term, _ in self._parsed)

    def resolve(self, layers: int, kinds: Kinds = ()) -> dict[int, float]:
        """The strength of every layer that has one above 0, for a model of so many layers, of these kinds.

        Raises:
            SelectionError: if a layer is out of range, a kind is not in the model, or the mask was made for another
                number of layers.
        """
        if self.made_for not in (None, layers):
            raise SelectionError(
                f"The layer mask {self.text!r} was made for a model of {self.made_for} layers; this one has {layers}. "
                "Make a new mask for this model."
            )
        strengths = {i: s for term, s in self._parsed for i in term.resolve(layers, "layer", kinds)}
        return {i: s for i, s in sorted(strengths.items()) if s > 0}

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Selection:
    """Which calls to look at: layers, heads and steps in this grammar, and branches ("all" or one's name)."""

    layers: Indices = field(default_factory=Indices)
    heads: Indices = field(default_factory=Indices)
    steps: Indices = field(default_factory=Indices)
    branches: str = "all"

    def resolve(self, run: Run) -> ResolvedSelection:
        """The calls of a run that are meant.

        Raises:
            SelectionError: if a layer, head or step is out of range, or a branch is not in the run.
        """
        return ResolvedSelection(
            layers=frozenset(self.layers.resolve(run.model.layers, "layer", run.model.kinds)),
            heads=self.heads.resolve(run.model.heads, "head"),
            steps=frozenset(self.steps.resolve(run.steps, "step")),
            branches=choose_branches(self.branches, run.branches),
        )


@dataclass(frozen=True)
class ResolvedSelection:
    """A `Selection`, resolved for one run."""

    layers: frozenset[int]
    heads: tuple[int, ...]
    steps: frozenset[int]
    branches: tuple[str, ...]

    def take(self, site: Site) -> bool:
        return site.layer in self.layers and site.step in self.steps and bool(self.heads) and bool(self.rows(site))

    def rows(self, site: Site) -> dict[str, list[int]]:
        """The rows of a call's batch, by chosen branch."""
        found = {branch: [i for i, row in enumerate(site.rows) if row.branch == branch] for branch in self.branches}
        return {branch: rows for branch, rows in found.items() if rows}

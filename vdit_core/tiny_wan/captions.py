"""The caption grammar of the synthetic world: the sentences of the paper, and nothing else.

    A [colour] car|truck|dog is driving|running on the highway|grass [in the winter]

The empty caption stands for "no caption" (the unconditional branch).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import VDiTError

OBJECTS = ("car", "truck", "dog")
COLOURS = ("red", "blue", "yellow", "green", "white", "black", "brown")
PLACES = ("highway", "grass")
SEASONS = ("summer", "winter")

#: Every word a prompt may use. The order is frozen: a word's position is its row in the shipped embedding table.
VOCABULARY = ("a", "is", "driving", "running", "on", "the", "in", *OBJECTS, *COLOURS, *PLACES, "winter")

_SENTENCE = re.compile(
    rf"a (?:(?P<colour>{'|'.join(COLOURS)}) )?(?P<object>{'|'.join(OBJECTS)}) "
    rf"is (?:driving|running) on the (?P<place>{'|'.join(PLACES)})(?P<winter> in the winter)?"
)


class UnknownWord(VDiTError, ValueError):
    """A prompt uses a word that the demo model never saw."""


class NotACaption(VDiTError, ValueError):
    """A prompt's words are known, but they do not form a sentence of the world's grammar."""


def words(prompt: str) -> list[str]:
    """Split a prompt into the demo model's words, ignoring case and punctuation.

    Raises:
        UnknownWord: naming the word and listing the known ones.
    """
    found = re.findall(r"[^\W_]+", prompt.lower())
    for word in found:
        if word not in VOCABULARY:
            raise UnknownWord(
                f"The demo model does not know the word {word!r} in {prompt!r}. "
                f"It was trained on these words only: {', '.join(VOCABULARY)}."
            )
    return found


@dataclass(frozen=True)
class Caption:
    """What a caption says of a clip. A colour of ``None`` is not named, and then random in the world."""

    object: str
    place: str = "highway"
    colour: str | None = None
    season: str = "summer"

    def __post_init__(self) -> None:
        for value, known in ((self.object, OBJECTS), (self.place, PLACES), (self.season, SEASONS)):
            if value not in known:
                raise ValueError(f"{value!r} is not one of {', '.join(known)}.")
        if self.colour is not None and self.colour not in COLOURS:
            raise ValueError(f"Colour {self.colour!r} is not one of {', '.join(COLOURS)}.")

    def __str__(self) -> str:
        colour = f"{self.colour} " if self.colour else ""
        verb = "running" if self.object == "dog" else "driving"
        winter = " in the winter" if self.season == "winter" else ""
        return f"A {colour}{self.object} is {verb} on the {self.place}{winter}"

    @classmethod
    def parse(cls, prompt: str) -> Caption:
        """Read a prompt of the grammar.

        Raises:
            UnknownWord: if a word is not in the vocabulary.
            NotACaption: if the words are known but the sentence is not one of the grammar's.
        """
        match = _SENTENCE.fullmatch(" ".join(words(prompt)))
        if match is None:
            raise NotACaption(
                f"{prompt!r} is not a sentence of the demo world. Its form is: "
                "A [colour] car|truck|dog is driving|running on the highway|grass [in the winter]."
            )
        return cls(
            object=match["object"],
            place=match["place"],
            colour=match["colour"],
            season="winter" if match["winter"] else "summer",
        )

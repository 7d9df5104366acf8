"""Says what the other languages lack: `python locales/translations.py [zh] [--done]`; docs/translating.md tells more.

A translation must say all that the English says. What a program can see of that is checked: every text is there, with
its numbers, its terms of code and the names of nodes, and was made of the English of today. translated_from.json in a
language's folder notes of which English each text was made; --done writes it anew.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent
FILES = ("main.json", "nodeDefs.json")  # what is translated of those that ComfyUI reads
NOTES = "translated_from.json"

#: Texts that may stay as they are in English.
KEPT = {"cfg"}

#: 3-7:0.5, 95%, 5@0, -1, Wan2.1. ASCII, since other scripts write no space around it.
_NUMBER = re.compile(r"[\w@:./%-]*\d[\w@:./%-]*", re.ASCII)

#: %year%, output/attention, KSampler, JSON, and what stands in quotation marks, as 'cond 2'.
_CODE = re.compile(r"%\w+%|[a-z]+/[a-z]+|\b[A-Z]+[a-z]*[A-Z]\w*|(?<!\w)'[^']+'|%", re.ASCII)

#: These have a meaning in the page's translations, and would not be shown.
_SPECIAL = set("{}|")


class Style(NamedTuple):
    """How a language writes."""

    full_stop: str = "."
    quotes: tuple[str, str] = ("", "")  # around the names of nodes
    own_commas: bool = False  # no , : ; beside its letters


_CHINESE = Style("。", ("“", "”"), own_commas=True)
STYLES = {"zh": _CHINESE, "zh-TW": Style("。", ("「", "」"), own_commas=True)}


def texts(folder: Path) -> dict[str, str]:
    """All texts of a language by their path, for example nodeDefs/VDiT_LayerMask/description."""
    return {
        f"{Path(file).stem}/{path}": text
        for file in FILES
        if (folder / file).is_file()
        for path, text in _flat(json.loads((folder / file).read_text(encoding="utf-8")))
    }


def _flat(content: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from ((f"{key}/{path}", text) for path, text in _flat(value))
        else:
            yield key, value


def to_do(folder: Path, english_folder: Path = FOLDER / "en") -> list[str]:
    """What a language's folder lacks, a line each; none if it is complete."""
    english, ours = texts(english_folder), texts(folder)
    file = folder / NOTES
    notes = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    style = STYLES.get(folder.name, Style())
    names = node_names(english, ours)
    lines = [f"{path}: the English has no such text any more" for path in ours.keys() - english.keys()]
    for path, text in english.items():
        if path not in ours:
            lines.append(f"{path}: missing: {text}")
            continue
        if notes.get(path) != _note(text):
            lines.append(f"{path}: not made of the English of today: {text}")
        lines += [f"{path}: {fault}" for fault in faults(path, text, ours[path], names, style)]
    return sorted(lines)


def faults(path: str, english: str, ours: str, names: dict[str, str], style: Style) -> Iterator[str]:
    """What is wrong with one text. names: the nodes' names in the language, by the English ones."""
    if not isinstance(ours, str) or not ours.strip():
        yield "empty"
        return
    if ours == english and english not in KEPT:
        yield "still English"
    lost, added = numbers(english) - numbers(ours), numbers(ours) - numbers(english)
    lost |= {term.strip("'") for term in _CODE.findall(english) if term.strip("'") not in ours}
    if lost:
        yield f"does not have {', '.join(sorted(lost))}"
    if added:
        yield f"has {', '.join(sorted(added))}, which the English has not"
    if special := _SPECIAL & set(ours):
        yield f"has {' '.join(sorted(special))}, which the page would not show"
    if style.own_commas and re.search(r"[\u3400-\u9fff][,:;?!]|[,:;?!][\u3400-\u9fff]", ours):
        yield "has a comma, colon or the like of English beside its own letters"
    sentence = path.endswith(("/description", "/tooltip"))
    if sentence != ours.endswith(style.full_stop):
        yield f"must {'' if sentence else 'not '}end with {style.full_stop}"
    if sentence:
        yield from _wrong_names(english, ours, names, style)


def numbers(text: str) -> set[str]:
    """The numbers of a text, with what belongs to them."""
    joined = re.sub(r"(\d) %", r"\1%", text)
    return {number.rstrip(".:/-").lstrip(".:/") for number in _NUMBER.findall(joined)}


def _wrong_names(english: str, ours: str, names: dict[str, str], style: Style) -> Iterator[str]:
    before, behind = style.quotes
    longest_first = sorted(names, key=len, reverse=True)
    said = set(re.findall("|".join(rf"\b{re.escape(name)}\b" for name in longest_first), english)) if names else set()
    for name in sorted(said):
        if before + names[name] + behind not in ours:
            yield f"does not name the node {name}: {before}{names[name]}{behind}"
    for quoted in re.findall(f"{before}([^{behind}]*){behind}", ours) if before else ():
        if quoted not in names.values():
            yield f"{before}{quoted}{behind} is not the name of a node"


def node_names(english: dict[str, str], ours: dict[str, str]) -> dict[str, str]:
    """The nodes' names as tooltips use them: without what is in brackets."""
    return {
        re.sub(r" \(.*\)$", "", text): re.sub(r" ?[(（].*[)）]$", "", ours[path])
        for path, text in english.items()
        if path.endswith("/display_name") and path in ours
    }


def _note(english: str) -> str:
    return sha256(english.encode()).hexdigest()[:8]


def _write_notes(folder: Path) -> None:
    english, ours = texts(FOLDER / "en"), texts(folder)
    notes = {path: _note(text) for path, text in english.items() if path in ours}
    (folder / NOTES).write_text(json.dumps(notes, indent=1) + "\n", encoding="utf-8")


def languages() -> list[str]:
    """All but English."""
    return sorted(folder.parent.name for folder in FOLDER.glob("*/nodeDefs.json") if folder.parent.name != "en")


def main(arguments: list[str]) -> int:
    """Print what is to be done; 1 if there is anything."""
    found = 0
    for language in [name for name in arguments if not name.startswith("-")] or languages():
        if "--done" in arguments:
            _write_notes(FOLDER / language)
        lines = to_do(FOLDER / language)
        print(*lines, f"{language}: {len(lines)} to do" if lines else f"{language}: complete", sep="\n")
        found += len(lines)
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

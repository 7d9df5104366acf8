"""Which calls of a run came, and how what did not come is told."""

from __future__ import annotations

from collections.abc import Iterable

#: A call of a run: layer, step, branch.
Place = tuple[int, int, str]

_PROMPTS = {"cond": "positive prompt", "uncond": "negative prompt"}


def gaps(came: set[Place], layers: Iterable[int], steps: Iterable[int]) -> list[str]:
    """Steps and layers that were meant and of which no call came, half a sentence for each.

    Which prompts a step computes is the guider's choice, so a branch that did not come in a step is no gap.
    """
    if not came:
        return ["no call came"]
    found = []
    if absent := set(steps) - {step for _, step, _ in came}:
        found.append(f"{numbered('step', absent)} did not come: something leaves steps out, as EasyCache does")
    if absent := set(layers) - {layer for layer, _, _ in came}:
        found.append(f"{numbered('layer', absent)} did not come: something replaces or skips them")
    return found


def prompt_name(branch: str) -> str:
    """A branch as users of a sampler call it."""
    return _PROMPTS.get(branch, f"prompt {branch!r}")


def numbered(what: str, numbers: set[int]) -> str:
    """As "step 3", "layers 0-4, 7"."""
    return f"{what}{'s' if len(numbers) > 1 else ''} {ranges(numbers)}"


def ranges(numbers: Iterable[int]) -> str:
    """Numbers in words: "3", "0-4, 7"."""
    return ", ".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in groups(set(numbers)))


def groups(numbers: Iterable[int]) -> list[list[int]]:
    """The numbers, rising, those that follow one another together."""
    found: list[list[int]] = []
    for n in sorted(numbers):
        if found and n == found[-1][-1] + 1:
            found[-1].append(n)
        else:
            found.append([n])
    return found

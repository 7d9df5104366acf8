"""Tables in Markdown: for a terminal, a README, a text node."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Cells = Sequence[str]


def markdown(heads: Cells, rows: Iterable[Cells], aligned: bool = False) -> str:
    """A table with a line for each row.

    aligned: whether columns are filled up with spaces, for reading it as plain text.
    """
    lines = [list(heads), ["---"] * len(heads), *map(list, rows)]
    if aligned:
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        lines = [[cell.ljust(width, "-" if cell == "---" else " ") for cell, width in zip(line, widths, strict=True)]
                 for line in lines]  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

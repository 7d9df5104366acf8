"""Values read from JSON that somebody else may have written, checked one by one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

#: What reading a hostile or damaged JSON text may raise.
UNREADABLE = (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError)


def number(value: Any, what: str = "number") -> float:
    """A finite number. Raises ValueError saying that this is not a `what`."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a {what}")
    return float(value)


def whole(value: Any) -> int:
    """A whole number, 0 and up. Raises ValueError."""
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a whole number")
    return value


def whole_numbers(values: Mapping[str, Any]) -> dict[str, int]:
    """A mapping of these."""
    return {name: whole(value) for name, value in values.items()}

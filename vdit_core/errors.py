"""The base of every error that this pack raises for a user to read."""

from __future__ import annotations

import weakref
from typing import Any

_NAME = "vdit_attention"


class VDiTError(Exception):
    """An error whose message says what is wrong, what was expected, and what to do.

    ComfyUI's dialog shows an error's class with its module, and the modules of a custom node are named after a path.
    So these have a short module of their own: `vdit_attention.TransferError`.

    raised_by: the interceptor of the run that raised it; None outside of a run.
    """

    __module__ = _NAME
    _raised_by: weakref.ref[Any] | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.__module__ = _NAME

    @property
    def raised_by(self) -> Any:
        return None if self._raised_by is None else self._raised_by()

    def note_raised_by(self, interceptor: Any) -> None:
        """Keep who raised it; the first one counts, which is the innermost."""
        if self._raised_by is None:
            self._raised_by = weakref.ref(interceptor)

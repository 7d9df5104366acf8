"""Files that are whole or not there."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a name to write to in the same folder; it becomes `path` if the block ends well, and is removed if not."""
    path = Path(path)
    part = path.with_name(f".{path.stem[:40]}.{uuid.uuid4().hex[:8]}.part{path.suffix}")  # no longer than `path` may be
    try:
        part.touch()
        permissions = part.stat().st_mode  # the user's own; some writers make files that nobody else may read
        yield part
        part.chmod(permissions)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)

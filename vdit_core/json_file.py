"""Things that are a JSON file each: read with care, since anyone may have written it, and written whole."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from .atomic import whole_file
from .json_fields import UNREADABLE

Thing = TypeVar("Thing", bound="JsonFile")


class JsonFile:
    """The base of such a thing.

    format, version: what its files say of themselves. thing: what it is called in messages. remedy: what to do about a
    file that is none. error: what is raised then. largest: bytes of a file.
    """

    format: ClassVar[str]
    version: ClassVar[int]
    thing: ClassVar[str]
    remedy: ClassVar[str]
    error: ClassVar[type[ValueError]]
    largest: ClassVar[float] = math.inf

    def to_json(self) -> str:
        """A whole file's text."""
        raise NotImplementedError

    @classmethod
    def from_fields(cls: type[Thing], found: dict[str, Any]) -> Thing:
        """Of a file's fields, any of which may be missing or odd: raises any of `UNREADABLE`."""
        raise NotImplementedError

    @classmethod
    def upgraded(cls, found: dict[str, Any]) -> dict[str, Any]:
        """The fields as this version has them. Raises `error` for a version that cannot be read."""
        if found.get("version") != cls.version:
            raise cls.error(f"it has version {found.get('version')!r}; this pack reads version {cls.version}")
        return found

    @classmethod
    def head(cls) -> dict[str, Any]:
        """How a file begins."""
        return {"format": cls.format, "version": cls.version}

    @classmethod
    def from_json(cls: type[Thing], text: str, name: str = "this text") -> Thing:
        """Raises `error`, naming the file and what is wrong with it."""
        try:
            found = json.loads(text)
            if not isinstance(found, dict) or found.get("format") != cls.format:
                raise cls.error("it is JSON of another kind")
            return cls.from_fields(cls.upgraded(found))
        except UNREADABLE as error:
            what = str(error) if isinstance(error, cls.error) else f"{type(error).__name__}: {error}"
            raise cls.error(f"{name} is not a whole {cls.thing}: {what.rstrip('.')}. {cls.remedy}.") from None

    def save(self, path: Path) -> None:
        """Write one whole file, or leave nothing behind. Raises OSError as the disk says."""
        with whole_file(Path(path)) as part:
            part.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls: type[Thing], path: Path) -> Thing:
        """Raises `error`, or FileNotFoundError if there is no file."""
        return cls.from_json(cls.text_of(path), str(path))

    @classmethod
    def text_of(cls, path: Path) -> str:
        """A file's text, "" if it is none. Raises as `load`."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"There is no {cls.thing} at {path}.")
        if path.stat().st_size > cls.largest:
            raise cls.error(
                f"{path} is not a {cls.thing}: it is larger than {cls.largest:,} bytes. Choose another file."
            )
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return ""

"""Files that nodes write and read by name, inside ComfyUI's own folders only: output/attention and input/attention."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import folder_paths

_FOLDER = "attention"
_LONGEST = 200  # bytes; systems take 255, and a number, a suffix and the mark of a file under way are added


@dataclass(frozen=True)
class NamedFiles:
    """Files of one kind. what: a word for messages, such as "recording". suffix: with its dot."""

    what: str
    suffix: str

    def names(self) -> list[str]:
        """All there are, each as "attention/name.suffix [output]" (or [input])."""
        found = (
            f"{_FOLDER}/{path.relative_to(folder).as_posix()} [{kind}]"
            for kind, folder in _folders().items()
            for path in sorted(folder.rglob(f"*{self.suffix}"))
            if not path.stem.endswith(".part")  # being written
        )
        return [name for name in found if self._is_there(name)]

    def _is_there(self, name: str) -> bool:
        try:
            self.path(name, must_exist=True)
        except ValueError:
            return False
        return True

    def may_be_named(self, prefix: str | None) -> bool | str:
        """Whether `new` takes a prefix, or why not; the result of a node's `validate_inputs`. None: not yet known."""
        if prefix is None:
            return True
        example = f"write for example {self.what.split()[-1]}, or cars/red."
        if not _is_name(prefix) or Path(prefix).name.strip() in ("", ".."):
            return f"{_short(prefix)} names no file; {example}"
        if max(len(part.encode()) for part in Path(prefix).parts) > _LONGEST:
            return f"{_short(prefix)} is too long for a file's name; {example}"
        if _inside(_folders()["output"], prefix) is None:
            return f"{_short(prefix)} leads out of output/{_FOLDER}; {example}"
        return True

    def new(self, prefix: str) -> tuple[str, Path]:
        """A name that is not taken, and its path in the output folder; a number is added to the prefix.

        Raises:
            ValueError: if the prefix leads out of the folder.
        """
        _, stem, counter, subfolder, _ = folder_paths.get_save_image_path(
            str(Path(_FOLDER) / prefix), folder_paths.get_output_directory()
        )
        name = f"{subfolder}/{stem}_{counter:05}_{self.suffix} [output]"
        return name, self.path(name)

    def path(self, name: str, must_exist: bool = False) -> Path:
        """The path of a name as `names` has it.

        Raises:
            ValueError: if it would lie outside these two folders, has another suffix, or is asked for and not there.
        """
        file, _, kind = name.rpartition(" ")
        folder = _folders().get(kind.strip("[]"))
        path = _inside(folder, folder.parent / file) if folder and _is_name(file) else None
        if path is None or path.suffix != self.suffix:
            raise ValueError(
                f"{_short(name)} is not a {self.what} in output/{_FOLDER} or input/{_FOLDER}; choose one from the list."
            )
        if must_exist and not path.is_file():
            raise ValueError(
                f"There is no {self.what} {_short(name)}; press R to refresh the list, and choose one from it."
            )
        return path


def _is_name(text: str) -> bool:
    """Whether a system takes it as a file's name at all."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:  # half a character
        return False


def _inside(folder: Path, path: Path | str) -> Path | None:
    """A path, links followed, if it lies in a folder."""
    try:
        found = (folder / path).resolve()
        found.is_file()
    except (OSError, RuntimeError):  # too long; a link to itself
        return None
    return found if found.is_relative_to(folder) else None


def _short(name: str) -> str:
    return repr(name if len(name) <= 200 else f"{name[:200]}…")


def _folders() -> dict[str, Path]:
    """Where files may lie, by the word that ComfyUI writes behind a file's name."""
    return {
        "output": Path(folder_paths.get_output_directory()).resolve() / _FOLDER,
        "input": Path(folder_paths.get_input_directory()).resolve() / _FOLDER,
    }

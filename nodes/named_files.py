"""Files that nodes write and read by name, inside ComfyUI's own folders only: output/attention and input/attention."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import folder_paths

_FOLDER = "attention"


@dataclass(frozen=True)
class NamedFiles:
    """Files of one kind. what: a word for messages, such as "recording". suffix: with its dot."""

    what: str
    suffix: str

    def names(self) -> list[str]:
        """All there are, each as "attention/name.suffix [output]" (or [input])."""
        return [
            f"{_FOLDER}/{path.relative_to(folder).as_posix()} [{kind}]"
            for kind, folder in _folders().items()
            for path in sorted(folder.rglob(f"*{self.suffix}"))
        ]

    def may_be_named(self, prefix: str | None) -> bool | str:
        """Whether `new` takes a prefix, or why not; the result of a node's `validate_inputs`. None: not yet known."""
        if prefix is not None and Path(prefix).name.strip() in ("", ".."):
            return f"{prefix!r} names no file; write for example {self.what.split()[-1]}, or cars/red."
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
        path = (folder.parent / file).resolve() if folder else None
        if path is None or folder is None or not path.is_relative_to(folder) or path.suffix != self.suffix:
            raise ValueError(
                f"{name!r} is not a {self.what} in output/{_FOLDER} or input/{_FOLDER}; choose one from the list."
            )
        if must_exist and not path.is_file():
            raise ValueError(f"There is no {self.what} {name!r}; press R to refresh the list, and choose one from it.")
        return path


def _folders() -> dict[str, Path]:
    """Where files may lie, by the word that ComfyUI writes behind a file's name."""
    return {
        "output": Path(folder_paths.get_output_directory()).resolve() / _FOLDER,
        "input": Path(folder_paths.get_input_directory()).resolve() / _FOLDER,
    }

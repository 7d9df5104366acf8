"""Save and Load Attention Store: recordings as files in ComfyUI's own folders (output/attention, input/attention)."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..vdit_core.store import AttentionStore
from . import report, sockets

_FOLDER, _SUFFIX = "attention", ".safetensors"


class SaveAttentionStore(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_SaveAttentionStore",
            display_name="Save Attention Store",
            category=sockets.CATEGORY,
            description="Writes a recording to output/attention, for other workflows and other days.",
            search_aliases=["export attention"],
            inputs=[
                sockets.AttentionStore.Input("store", tooltip="From Finish Recording."),
                io.String.Input(
                    "filename_prefix",
                    default="recording",
                    tooltip="The file's name in output/attention; a number is added. %year% %month% %day% work.",
                ),
            ],
            outputs=[
                sockets.AttentionStore.Output(display_name="store", tooltip="The same recording."),
                io.Combo.Output(display_name="file", tooltip="The file written; for Load Attention Store."),
            ],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, store: AttentionStore, filename_prefix: str) -> io.NodeOutput:
        _, stem, counter, subfolder, _ = folder_paths.get_save_image_path(
            str(Path(_FOLDER) / filename_prefix), folder_paths.get_output_directory()
        )
        name = f"{stem}_{counter:05}_{_SUFFIX}"
        file = _named(f"{subfolder}/{name} [output]")
        store.save(file)
        report.show(cls.hidden.unique_id, f"saved {name}", good=True, layers=store.header.model.layers)
        return io.NodeOutput(store, f"{subfolder}/{name} [output]")


class LoadAttentionStore(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_LoadAttentionStore",
            display_name="Load Attention Store",
            category=sockets.CATEGORY,
            description="Reads a recording from output/attention or input/attention; the whole file is checked first.",
            search_aliases=["import attention"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=_files(),
                    tooltip="A file that Save Attention Store wrote (press R to refresh the list), or its file output.",
                )
            ],
            outputs=[sockets.AttentionStore.Output(display_name="store", tooltip="The recording.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        if file is None:  # from Save Attention Store, not yet written
            return True
        try:
            _named(file, must_exist=True)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str | None = None) -> tuple[int, int] | None:
        try:
            state = _named(file or "", must_exist=True).stat()
        except ValueError:
            return None
        return state.st_mtime_ns, state.st_size

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        store = AttentionStore.load(_named(file, must_exist=True))
        report.show(cls.hidden.unique_id, f"loaded {store.size()}", good=True, layers=store.header.model.layers)
        return io.NodeOutput(store)


def _folders() -> dict[str, Path]:
    """Where recordings may lie, by the word that ComfyUI writes behind a file's name."""
    return {
        "output": Path(folder_paths.get_output_directory()).resolve() / _FOLDER,
        "input": Path(folder_paths.get_input_directory()).resolve() / _FOLDER,
    }


def _files() -> list[str]:
    return [
        f"{_FOLDER}/{path.relative_to(folder).as_posix()} [{kind}]"
        for kind, folder in _folders().items()
        for path in sorted(folder.rglob(f"*{_SUFFIX}"))
    ]


def _named(file: str, must_exist: bool = False) -> Path:
    """The path of "attention/name.safetensors [output]" (or [input]).

    Raises:
        ValueError: if it would lie outside these two folders, has another suffix, or is asked for and not there.
    """
    name, _, kind = file.rpartition(" ")
    folder = _folders().get(kind.strip("[]"))
    path = (folder.parent / name).resolve() if folder else None
    if path is None or not path.is_relative_to(folder) or path.suffix != _SUFFIX:
        raise ValueError(
            f"{file!r} is not a recording in output/{_FOLDER} or input/{_FOLDER}; choose one from the list."
        )
    if must_exist and not path.is_file():
        raise ValueError(f"There is no recording {file!r}; press R to refresh the list, and choose one from it.")
    return path

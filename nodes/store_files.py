"""Save and Load Attention Store: recordings as files in ComfyUI's own folders (output/attention, input/attention)."""

from __future__ import annotations

from comfy_api.latest import io

from ..vdit_core.outcome import done
from ..vdit_core.recording.store import AttentionStore
from . import progress, sockets
from .named_files import NamedFiles
from .outcomes import Telling

_FILES = NamedFiles("recording", ".safetensors")


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
    def validate_inputs(cls, filename_prefix: str | None = None) -> bool | str:
        return _FILES.may_be_named(filename_prefix)

    @classmethod
    def execute(cls, store: AttentionStore, filename_prefix: str) -> io.NodeOutput:
        name, path = _FILES.new(filename_prefix)
        advance = progress.bar(len(store))

        def on_entry() -> None:
            progress.stop_if_asked()
            advance()

        store.save(path, on_entry)
        ui = Telling(cls.hidden.unique_id, "Save Attention Store").tell(
            done(f"saved {path.name}"), store.header.model.layers
        )
        return io.NodeOutput(store, name, ui=ui)


class LoadAttentionStore(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_LoadAttentionStore",
            display_name="Load Attention Store",
            category=sockets.CATEGORY,
            description="Opens a recording in output/attention or input/attention: it is checked now, and read when "
            "it is used.",
            search_aliases=["import attention"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=_FILES.names(),
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
            _FILES.path(file, must_exist=True)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str | None = None) -> tuple[int, int] | None:
        try:
            state = _FILES.path(file or "", must_exist=True).stat()
        except ValueError:
            return None
        return state.st_mtime_ns, state.st_size

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        store = AttentionStore.load(_FILES.path(file, must_exist=True))
        ui = Telling(cls.hidden.unique_id, "Load Attention Store").tell(
            done(f"loaded {store.size()}"), store.header.model.layers
        )
        return io.NodeOutput(store, ui=ui)

"""Save and Load of recordings, sparsity profiles and head masks: files in output/attention and input/attention."""

from __future__ import annotations

from typing import ClassVar

from comfy_api.latest import io

from ..vdit_core.head_mask import HeadMask
from ..vdit_core.outcome import done
from ..vdit_core.recording.store import AttentionStore
from ..vdit_core.sparse.density_profile import DensityProfile
from ..vdit_core.sparse.profile import SparseProfile
from ..vdit_core.sparse.profile_file import load_profile
from . import categories, progress, sockets
from .named_files import NamedFiles
from .outcomes import Telling

_STORES = NamedFiles("recording", ".safetensors")
_PROFILES = NamedFiles("sparsity profile", ".json")
_MASKS = NamedFiles("head mask", ".headmask")


class _Save(io.ComfyNode):
    """What all Save nodes check."""

    files: ClassVar[NamedFiles]

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None) -> bool | str:
        return cls.files.may_be_named(filename_prefix)

    @staticmethod
    def _prefix(default: str) -> io.String.Input:
        return io.String.Input(
            "filename_prefix",
            display_name="file name",
            default=default,
            tooltip="The file's name in output/attention; a number is added. %year%, %month% and %day% work.",
        )


class _Load(io.ComfyNode):
    """What all Load nodes check; None: the file comes from a Save node that has not run yet."""

    files: ClassVar[NamedFiles]

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        if file is not None:
            try:
                cls.files.path(file, must_exist=True)
            except ValueError as error:
                return str(error)
        return True

    @classmethod
    def _file(cls, display_name: str, saver: str) -> io.Combo.Input:
        return io.Combo.Input(
            "file",
            display_name=display_name,
            options=cls.files.names(),
            tooltip=f"A file that {saver} wrote (press R to refresh the list), or its file output.",
        )

    @classmethod
    def fingerprint_inputs(cls, file: str | None = None) -> tuple[int, int] | None:
        try:
            state = cls.files.path(file or "", must_exist=True).stat()
        except ValueError:
            return None
        return state.st_mtime_ns, state.st_size


class SaveAttentionStore(_Save):
    files = _STORES

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_SaveAttentionStore",
            display_name="Save Attention Store",
            category=categories.FILES,
            description="Writes a recording to output/attention, for other workflows and other days.",
            search_aliases=["export attention", "keep recording", "reuse recording"],
            inputs=[
                sockets.AttentionStore.Input("store", tooltip="The recording that Finish Recording gives out."),
                cls._prefix("recording"),
            ],
            outputs=[
                sockets.AttentionStore.Output(display_name="store", tooltip="The same recording."),
                io.Combo.Output(display_name="file", tooltip="The written file, for Load Attention Store."),
            ],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, store: AttentionStore, filename_prefix: str) -> io.NodeOutput:
        name, path = cls.files.new(filename_prefix)
        advance = progress.bar(len(store))

        def on_entry() -> None:
            progress.stop_if_asked()
            advance()

        store.save(path, on_entry)
        telling = Telling(cls.hidden.unique_id, "Save Attention Store")
        return io.NodeOutput(store, name, ui=telling.tell(done(f"saved {path.name}"), store.header.model))


class LoadAttentionStore(_Load):
    files = _STORES

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_LoadAttentionStore",
            display_name="Load Attention Store",
            category=categories.FILES,
            description="Opens a recording in output/attention or input/attention. The file is checked now, and read "
            "when it is used.",
            search_aliases=["import attention", "reuse recording"],
            inputs=[cls._file("recording", "Save Attention Store")],
            outputs=[sockets.AttentionStore.Output(display_name="store", tooltip="The recording.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        store = AttentionStore.load(cls.files.path(file, must_exist=True))
        telling = Telling(cls.hidden.unique_id, "Load Attention Store")
        return io.NodeOutput(store, ui=telling.tell(done(f"loaded {store.size()}"), store.header.model))


class SaveSparsityProfile(_Save):
    files = _PROFILES

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_SaveSparsityProfile",
            display_name="Save Sparsity Profile",
            category=categories.FILES,
            description="Writes a profile to output/attention, for other workflows and for others with this model.",
            search_aliases=["export sparsity"],
            inputs=[
                sockets.SparseProfile.Input("profile", tooltip="The profile that Sparsity Profile measured."),
                cls._prefix("profile"),
            ],
            outputs=[
                sockets.SparseProfile.Output(display_name="profile", tooltip="The same profile."),
                io.Combo.Output(display_name="file", tooltip="The written file, for Load Sparsity Profile."),
            ],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, profile: SparseProfile | DensityProfile, filename_prefix: str) -> io.NodeOutput:
        name, path = cls.files.new(filename_prefix)
        profile.save(path)
        telling = Telling(cls.hidden.unique_id, "Save Sparsity Profile")
        return io.NodeOutput(profile, name, ui=telling.tell(done(f"saved {path.name}"), profile.model))


class LoadSparsityProfile(_Load):
    files = _PROFILES

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_LoadSparsityProfile",
            display_name="Load Sparsity Profile",
            category=categories.FILES,
            description="Reads a profile from output/attention or input/attention.",
            search_aliases=["import sparsity"],
            inputs=[cls._file("profile", "Save Sparsity Profile")],
            outputs=[
                sockets.SparseProfile.Output(display_name="profile", tooltip="The profile, for Sparse Attention.")
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        profile = load_profile(cls.files.path(file, must_exist=True))
        telling = Telling(cls.hidden.unique_id, "Load Sparsity Profile")
        text = f"loaded {profile.label}, {profile.model.layers} layers"
        return io.NodeOutput(profile, ui=telling.tell(done(text), profile.model))


class SaveHeadMask(_Save):
    files = _MASKS

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_SaveHeadMask",
            display_name="Save Head Mask",
            category=categories.FILES,
            description="Writes a mask of layers and heads to output/attention, for other workflows and for others "
            "with this model.",
            search_aliases=["export heads"],
            inputs=[
                sockets.HeadMask.Input("mask", tooltip="The mask, from Head Mask."),
                cls._prefix("mask"),
            ],
            outputs=[
                sockets.HeadMask.Output(display_name="head mask", tooltip="The same mask."),
                io.Combo.Output(display_name="file", tooltip="The written file, for Load Head Mask."),
            ],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, mask: HeadMask, filename_prefix: str) -> io.NodeOutput:
        name, path = cls.files.new(filename_prefix)
        mask.save(path)
        telling = Telling(cls.hidden.unique_id, "Save Head Mask")
        return io.NodeOutput(mask, name, ui=telling.tell(done(f"saved {path.name}")))


class LoadHeadMask(_Load):
    files = _MASKS

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_LoadHeadMask",
            display_name="Load Head Mask",
            category=categories.FILES,
            description="Reads a mask of layers and heads from output/attention or input/attention.",
            search_aliases=["import heads"],
            inputs=[cls._file("head mask", "Save Head Mask")],
            outputs=[
                sockets.HeadMask.Output(
                    display_name="head mask", tooltip="The head mask, for transfers, Sparse Attention and Sink Control."
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        mask = HeadMask.load(cls.files.path(file, must_exist=True))
        telling = Telling(cls.hidden.unique_id, "Load Head Mask")
        shown = mask.text if len(mask.text) <= 40 else f"{mask.text[:40]}…"
        return io.NodeOutput(mask, ui=telling.tell(done(f"loaded {shown}")))

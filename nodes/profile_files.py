"""Save and Load Sparsity Profile: JSON files in ComfyUI's own folders (output/attention, input/attention)."""

from __future__ import annotations

from comfy_api.latest import io

from ..vdit_core.outcome import done
from ..vdit_core.sparse.profile import SparseProfile
from . import sockets
from .named_files import NamedFiles
from .outcomes import Telling

_FILES = NamedFiles("sparsity profile", ".json")


class SaveSparsityProfile(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_SaveSparsityProfile",
            display_name="Save Sparsity Profile",
            category=sockets.CATEGORY,
            description="Writes a profile to output/attention, for other workflows and for others with this model.",
            search_aliases=["export sparsity"],
            inputs=[
                sockets.SparseProfile.Input("profile", tooltip="From Sparsity Profile."),
                io.String.Input(
                    "filename_prefix",
                    default="profile",
                    tooltip="The file's name in output/attention; a number is added. %year% %month% %day% work.",
                ),
            ],
            outputs=[
                sockets.SparseProfile.Output(display_name="profile", tooltip="The same profile."),
                io.Combo.Output(display_name="file", tooltip="The file written; for Load Sparsity Profile."),
            ],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None) -> bool | str:
        return _FILES.may_be_named(filename_prefix)

    @classmethod
    def execute(cls, profile: SparseProfile, filename_prefix: str) -> io.NodeOutput:
        name, path = _FILES.new(filename_prefix)
        profile.save(path)
        ui = Telling(cls.hidden.unique_id, "Save Sparsity Profile").tell(
            done(f"saved {path.name}"), profile.model.layers
        )
        return io.NodeOutput(profile, name, ui=ui)


class LoadSparsityProfile(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VDiT_LoadSparsityProfile",
            display_name="Load Sparsity Profile",
            category=sockets.CATEGORY,
            description="Reads a profile from output/attention or input/attention.",
            search_aliases=["import sparsity"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=_FILES.names(),
                    tooltip="What Save Sparsity Profile wrote (press R to refresh the list), or its file output.",
                )
            ],
            outputs=[sockets.SparseProfile.Output(display_name="profile", tooltip="For Sparse Attention.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        if file is None:  # from Save Sparsity Profile, not yet written
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
        profile = SparseProfile.load(_FILES.path(file, must_exist=True))
        text = f"{profile.method}, {profile.model.layers} layers"
        ui = Telling(cls.hidden.unique_id, "Load Sparsity Profile").tell(done(f"loaded {text}"), profile.model.layers)
        return io.NodeOutput(profile, ui=ui)

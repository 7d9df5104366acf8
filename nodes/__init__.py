"""The pack's ComfyUI nodes, one file per family: schema, validation, a call into `vdit_core`."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import renamed
from .compare import CompareAttention
from .demo_model import DemoClip, DemoModel
from .edit_footage import EditFootage
from .files import (
    LoadAttentionStore,
    LoadHeadMask,
    LoadSparsityProfile,
    SaveAttentionStore,
    SaveHeadMask,
    SaveSparsityProfile,
)
from .head_mask import HeadMaskNode
from .head_roles import HeadRoles
from .layer_mask import LayerMaskNode
from .layer_sweep import LayerSweep
from .record import FinishRecording, RecordAttention
from .refusals import say_refusals
from .side_by_side import SideBySide
from .sinks import SinkControlNode, SinkInspector
from .sparse import SparseAttentionNode
from .sparse_report import SparseReport
from .sparsity_profile import SparsityProfile
from .structure import AttentionStructure
from .transfer import LiveTransferNode, TransferAttention

NODES = [
    DemoModel,
    DemoClip,
    RecordAttention,
    FinishRecording,
    TransferAttention,
    LiveTransferNode,
    EditFootage,
    SideBySide,
    LayerMaskNode,
    HeadMaskNode,
    SaveHeadMask,
    LoadHeadMask,
    SaveAttentionStore,
    LoadAttentionStore,
    AttentionStructure,
    CompareAttention,
    HeadRoles,
    LayerSweep,
    SparseAttentionNode,
    SparsityProfile,
    SaveSparsityProfile,
    LoadSparsityProfile,
    SparseReport,
    SinkInspector,
    SinkControlNode,
]
for _node in NODES:
    say_refusals(_node)


class VDiTExtension(ComfyExtension):
    """What ComfyUI asks for the pack's nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> VDiTExtension:
    """The function that ComfyUI looks for."""
    renamed.listen()
    return VDiTExtension()

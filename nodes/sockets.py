"""The pack's typed sockets: what flows between its nodes."""

from __future__ import annotations

from comfy_api.latest import io

#: Watches the sampling run of the model that it came with; `recording.Recording`.
AttentionRecorder = io.Custom("ATTENTION_RECORDER")

#: A finished recording; `vdit_core.AttentionStore`.
AttentionStore = io.Custom("ATTENTION_STORE")

#: A strength per layer; `vdit_core.selection.LayerMask`.
LayerMask = io.Custom("LAYER_MASK")

#: A strength per layer and head; `vdit_core.head_mask.HeadMask`.
HeadMask = io.Custom("HEAD_MASK")

#: What each layer and head tolerates or needs; `vdit_core.sparse.profile.SparseProfile`, or
#: `vdit_core.sparse.density_profile.DensityProfile`.
SparseProfile = io.Custom("SPARSE_PROFILE")

#: What was measured of the keys of a run; `vdit_core.sinks.record.SinkRecord`, or None if nothing was.
SinkRecord = io.Custom("SINK_RECORD")

#: Which heads sink attention into which tokens; `vdit_core.sinks.control.Targets`.
Sinks = io.Custom("SINKS")


def mask(name: str, tooltip: str) -> io.MultiType.Input:
    """An optional input for a mask of either kind."""
    return io.MultiType.Input(name, types=[LayerMask, HeadMask], optional=True, tooltip=tooltip)

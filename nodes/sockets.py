"""The pack's typed sockets: what flows between its nodes."""

from __future__ import annotations

from comfy_api.latest import io

#: Watches the sampling run of the model that it came with; `recording.Recording`.
AttentionRecorder = io.Custom("ATTENTION_RECORDER")

#: A finished recording; `vdit_core.AttentionStore`.
AttentionStore = io.Custom("ATTENTION_STORE")

#: A strength per layer; `vdit_core.selection.LayerMask`.
LayerMask = io.Custom("LAYER_MASK")

#: What each layer and head tolerates; `vdit_core.sparse.profile.SparseProfile`.
SparseProfile = io.Custom("SPARSE_PROFILE")

#: What was measured of the keys of a run; `vdit_core.sinks.record.SinkRecord`, or None if nothing was.
SinkRecord = io.Custom("SINK_RECORD")

#: Which heads sink attention into which tokens; `vdit_core.sinks.control.Targets`.
Sinks = io.Custom("SINKS")

CATEGORY = "VDiT Attention"

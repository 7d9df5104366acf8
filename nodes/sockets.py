"""The pack's typed sockets: what flows between its nodes."""

from __future__ import annotations

from comfy_api.latest import io

#: Watches the sampling run of the model that it came with; `recording.Recording`.
AttentionRecorder = io.Custom("ATTENTION_RECORDER")

#: A finished recording; `vdit_core.store.AttentionStore`.
AttentionStore = io.Custom("ATTENTION_STORE")

#: A strength per layer; `vdit_core.selection.LayerMask`.
LayerMask = io.Custom("LAYER_MASK")

#: What each layer and head tolerates; `vdit_core.sparse.profile.SparseProfile`.
SparseProfile = io.Custom("SPARSE_PROFILE")

CATEGORY = "VDiT Attention"

"""Workflow files that version 0.1.0-dev saved show today's names in the page, and keep their values."""

from __future__ import annotations

import json

import pytest
from comfyui.installation import PACK

OLD = PACK / "tests" / "comfyui" / "workflows_0.1.0-dev"


@pytest.mark.parametrize(
    ("file", "kind", "name", "value"),
    [
        ("1 Transfer - try it (demo model)", "VDiT_RecordAttention", "quantization", "none"),
        ("10 Sparse attention (demo model)", "VDiT_SparseAttention", "method", "exact top-k"),
        ("10 Sparse attention (demo model)", "VDiT_SparsityProfile", "method", "exact top-k"),
        ("10 Sparse attention (demo model)", "VDiT_SparseReport", "method", "exact top-k"),
        ("12 Sinks (demo model)", "VDiT_SinkInspector", "participation", 0.25),
    ],
)
def test_an_old_workflow_has_todays_names(comfy, file, kind, name, value):
    comfy.load(json.loads((OLD / f"{file}.json").read_text(encoding="utf-8")))
    nodes = comfy.of_type(kind)
    assert nodes
    for node in nodes:
        assert comfy.value(node, name) == value
    saved = [node for node in comfy.workflow()["nodes"] if node["type"] == kind]
    inputs = [entry["name"] for node in saved for entry in node["inputs"]]
    assert name in inputs
    assert not {"precision", "evenness"} & set(inputs)

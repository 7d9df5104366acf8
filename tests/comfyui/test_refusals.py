"""What a node refuses is told above it, not in the error dialog alone."""

from __future__ import annotations

import pytest
from comfyui import graphs
from comfyui.server import PromptFailed


def refused(server, prompt: dict, node: str) -> tuple[dict, str]:
    """What is told above a node of a prompt that fails, and the error."""
    with pytest.raises(PromptFailed) as failed:
        server.run(prompt)
    (report,) = (m["data"] for m in failed.value.result.messages
                 if m["type"] == "vdit.report" and m["data"]["node"] == node)  # fmt: skip
    return report, str(failed.value)


def test_a_node_that_raises_says_why_above_itself(server):
    picture = graphs.node("EmptyImage", width=64, height=64, batch_size=1, color=0)
    prompt = {
        "one": picture,
        "both": graphs.node("VDiT_SideBySide", first=["one", 0], second=["one", 0], labels="a\nb\nc",
                            direction="right", enlarge=1),
        "save": graphs.node("SaveImage", images=["both", 0], filename_prefix="refused"),
    }  # fmt: skip
    report, error = refused(server, prompt, "both")
    assert report["level"] == "failed"
    assert report["text"].startswith("There are 3 labels for 2 videos.")
    assert report["text"] in error


def test_finish_recording_of_another_sampler(server):
    prompt = graphs.recorded("store", "source") | {"other": graphs.sampler(["demo", 0], "target", steps=1)}
    prompt |= graphs.demo()
    (finish,) = (node for node in prompt.values() if node["class_type"] == "VDiT_FinishRecording")
    finish["inputs"]["latent"] = ["other", 0]
    prompt["save"] = graphs.node("SaveLatent", samples=["store", 1], filename_prefix="refused")
    report, _ = refused(server, prompt, "store")
    assert report["level"] == "failed"
    assert "no recording of this latent" in report["text"]

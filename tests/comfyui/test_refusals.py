"""What a node refuses is told above it, not in the error dialog alone."""

from __future__ import annotations

from comfyui import graphs
from comfyui.server import PromptFailed, Result


def told(server, prompt: dict) -> tuple[Result, str]:
    """What a prompt that fails told until then, and its error."""
    with server._listening() as messages:
        result = server._queue(prompt, {})
        for message in messages:
            try:
                result.take(message)
            except PromptFailed as error:
                return result, str(error)
    raise AssertionError("it did not fail")


def test_a_node_that_raises_says_why_above_itself(server):
    picture = graphs.node("EmptyImage", width=64, height=64, batch_size=1, color=0)
    prompt = {
        "one": picture,
        "both": graphs.node("VDiT_SideBySide", first=["one", 0], second=["one", 0], labels="a\nb\nc",
                            direction="right", enlarge=1),
        "save": graphs.node("SaveImage", images=["both", 0], filename_prefix="refused"),
    }  # fmt: skip
    result, error = told(server, prompt)
    (report,) = (m["data"] for m in result.messages if m["type"] == "vdit.report")
    assert (report["node"], report["level"]) == ("both", "failed")
    assert report["text"].startswith("There are 3 labels for 2 videos.")
    assert report["text"] in error


def test_finish_recording_of_another_sampler(server):
    prompt = graphs.recorded("store", "source") | {"other": graphs.sampler(["demo", 0], "target", steps=1)}
    prompt |= graphs.demo()
    (finish,) = (node for node in prompt.values() if node["class_type"] == "VDiT_FinishRecording")
    finish["inputs"]["latent"] = ["other", 0]
    prompt["save"] = graphs.node("SaveLatent", samples=["store", 1], filename_prefix="refused")
    result, _ = told(server, prompt)
    reports = [m["data"] for m in result.messages if m["type"] == "vdit.report" and m["data"]["node"] == "store"]
    assert [report["level"] for report in reports] == ["failed"]
    assert "no recording of this latent" in reports[0]["text"]

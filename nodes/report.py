"""The summary on a node after a run ("replaced 240 of 240 calls"): sent to the page, drawn by web/js/report.js."""

from __future__ import annotations

from server import PromptServer

EVENT = "vdit.report"


def show(node: str | None, text: str, good: bool, layers: int | None = None) -> None:
    """Tell the page what a node did in the run that just ended.

    node: the node's id in the running graph. good: whether everything that was to be done was done. layers: how many
    the model has, if that is known.
    """
    server = getattr(PromptServer, "instance", None)
    if server is not None and node is not None:
        server.send_sync(EVENT, {"node": node, "text": text, "good": good, "layers": layers})

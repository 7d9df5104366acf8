"""The summary on a node after a run ("replaced 240 of 240 calls"): sent to the page, drawn by web/js/report.js."""

from __future__ import annotations

from typing import Any

from comfy_execution.utils import get_executing_context
from server import PromptServer

EVENT = "vdit.report"


def show(node: str | None, text: str, good: bool, layers: int | None = None) -> None:
    """Tell the page that queued the running prompt what a node did; another workflow may be open there by now.

    node: the node's id in the running graph. good: whether everything that was to be done was done. layers: how many
    the model has, if that is known.
    """
    server, context = getattr(PromptServer, "instance", None), get_executing_context()
    if None in (server, context, node) or server.client_id is None:
        return
    prompt = context.prompt_id
    told = {"node": node, "text": text, "good": good, "layers": layers}
    run = {"prompt": prompt, "workflow": _workflow(server, prompt)}
    server.send_sync(EVENT, told | run, server.client_id)


def _workflow(server: Any, prompt: str) -> str | None:
    """The id of the workflow that a running prompt was made of, as the page sent it along."""
    queue = server.prompt_queue
    running, _ = getattr(queue, "get_current_queue_volatile", queue.get_current_queue)()  # the former copies nothing
    for _number, prompt_id, _graph, extra, *_ in running:
        if prompt_id == prompt:
            return ((extra.get("extra_pnginfo") or {}).get("workflow") or {}).get("id")
    return None

"""What the pack's nodes did in a run, told to everyone.

The page draws it above the node (web/js/report.js), the log has a line, and the queue's history has it in the node's
output, for whoever queued a prompt without a page:

    history[prompt]["outputs"][node]["vdit_outcome"] == [[{"level": "done", "text": "replaced 54 of 54 calls", ...}]]
"""

from __future__ import annotations

import copy
import logging
import weakref
from collections.abc import Callable
from typing import Any

from comfy_api.latest import io
from comfy_execution.utils import get_executing_context
from server import PromptServer

from ..vdit_core.call import Interceptor, ModelSignature
from ..vdit_core.hosts.comfy import Outcome, attach, graph
from ..vdit_core.outcome import Level, Verdict, failed, of_runs

EVENT, KEY = "vdit.report", "vdit_outcome"


class Telling:
    """What one node tells of the sampling runs of its model, or of its own execution.

    name: of the node, for the log. `ui` goes into the node's output: its list is filled when a run has ended, which is
    after the node itself was executed. (A list, since ComfyUI counts dictionaries as files that a prompt made.)
    """

    def __init__(self, node: str | None, name: str) -> None:
        self.node, self.name = node, name
        self._cell: list[dict[str, Any]] = []
        self._prompt: str | None = None
        self._verdicts: list[Verdict] = []
        self._about: tuple[str | None, dict[str, Any]] = (None, {})  # whose execution, and the graph up to there
        _tellings.setdefault(node, weakref.WeakSet()).add(self)

    @property
    def ui(self) -> dict[str, list[Any]]:
        return {KEY: [self._cell]}

    def tell(
        self, verdict: Verdict, model: ModelSignature | None = None, by: str | None = None
    ) -> dict[str, list[Any]]:
        """Say what came of the running prompt; of several runs in it, all of them. Returns `ui`.

        model: what is known of it. by: the node whose execution it is about, if not this one's.
        """
        prompt = _running_prompt()
        if prompt != self._prompt or prompt is None:
            self._keep_history()
            self._prompt, self._verdicts = prompt, []
        about = by or self.node
        self._about = about, graph.before(graph.prompt_graph(), about)
        self._verdicts.append(verdict)
        said = of_runs(self._verdicts)
        self._cell[:] = [{"level": said.level.value, "text": said.text, "prompt": prompt}]
        level = logging.INFO if said.level in (Level.DONE, Level.IDLE) else logging.WARNING
        logging.log(level, "VDiT Attention: %s (node %s): %s", self.name, self.node, said.text)
        self.show(said, model, by)
        return self.ui

    def show(self, verdict: Verdict, model: ModelSignature | None = None, by: str | None = None) -> None:
        """Only the page is told: how far something is, or what cannot be the last word yet."""
        show(self.node, verdict, model, by)

    def forget_if_changed(self) -> None:
        """What an earlier prompt said holds in this one only if the graph up to the node that ran is the same."""
        about, was = self._about
        now = graph.before(graph.prompt_graph(), about)
        if self._cell and (now != was or self.node not in now):
            self._keep_history()
            self._cell.clear()

    def _keep_history(self) -> None:
        """The history of earlier prompts, which shares the cell with ComfyUI's cache, keeps what it says."""
        queue = getattr(getattr(PromptServer, "instance", None), "prompt_queue", None)
        if queue is None or not self._cell:
            return
        with queue.mutex:
            for entry in queue.history.values():
                output = entry["outputs"].get(self.node) or {}
                if any(cell is self._cell for cell in output.get(KEY, ())):
                    entry["outputs"][self.node] = copy.deepcopy(output)


#: By node: who tells something of it, as long as ComfyUI keeps that node's output.
_tellings: dict[str | None, weakref.WeakSet[Telling]] = {}


class TellingNode(io.ComfyNode):
    """A node that tells of its model's runs, which may be others in every prompt though the node itself is cached."""

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> int:
        """The same always; ComfyUI asks for it when a prompt begins."""
        forget_what_changed(cls.hidden.unique_id)
        return 0


def forget_what_changed(node: str | None) -> None:
    """A prompt with this node begins: what the node said in another graph is taken back."""
    for telling in list(_tellings.get(node, ())):
        telling.forget_if_changed()


def attach_and_tell(
    model: Any,
    interceptor: Interceptor,
    telling: Telling,
    did: Callable[[], Verdict],
    check: Callable[[dict[str, Any], Any, Any], str | None] | None = None,
) -> Any:
    """The model with an editor that tells after each run what it did, or why it could not."""

    def ended(outcome: Outcome) -> None:
        tell_outcome(telling, outcome, did)

    def missed(why: str) -> None:
        telling.show(failed(why), by=executing_node())

    return attach(model, interceptor, ended, missed, check=check)


def tell_outcome(telling: Telling, outcome: Outcome, did: Callable[[], Verdict]) -> None:
    """Tell how a run ended, unless it broke off for reasons of others."""
    verdict = outcome.verdict(did)
    if verdict is not None:
        telling.tell(verdict, None if outcome.run is None else outcome.run.model, outcome.sampled_by)


def show(node: str | None, verdict: Verdict, model: ModelSignature | None = None, by: str | None = None) -> None:
    """Tell the page that queued the running prompt what a node did; another workflow may be open there by now."""
    server: Any = getattr(PromptServer, "instance", None)
    context = get_executing_context()
    if None in (server, context, node) or server.client_id is None:
        return
    told: dict[str, Any] = {"node": node, "text": verdict.text, "level": verdict.level.value, "by": by or node}
    shape = (None, None, []) if model is None else (model.layers, model.heads, model.kinds)
    told |= dict(zip(("layers", "heads", "kinds"), shape, strict=True))
    told["good"] = verdict.level in (Level.DONE, Level.IDLE)  # for pages that were opened before an update
    run = {"prompt": context.prompt_id, "workflow": _workflow(server, context.prompt_id)}
    server.send_sync(EVENT, told | run, server.client_id)


def _running_prompt() -> str | None:
    context = get_executing_context()
    return None if context is None else context.prompt_id


def executing_node() -> str | None:
    """The node that runs now."""
    context = get_executing_context()
    return None if context is None else context.node_id


def _workflow(server: Any, prompt: str) -> str | None:
    """The id of the workflow that a running prompt was made of, as the page sent it along."""
    queue = server.prompt_queue
    running, _ = getattr(queue, "get_current_queue_volatile", queue.get_current_queue)()  # the former copies nothing
    for _number, prompt_id, _graph, extra, *_ in running:
        if prompt_id == prompt:
            return ((extra.get("extra_pnginfo") or {}).get("workflow") or {}).get("id")
    return None

"""Which recording goes to which Finish Recording.

One recorder may watch several sampling runs before any is asked for; each recording is filed under the latent its run
gave and under the node that sampled.
"""

from __future__ import annotations

import hashlib
import weakref
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import comfy.model_management
import torch
from comfy_execution.utils import get_executing_context
from torch import Tensor

from ..vdit_core.errors import VDiTError
from ..vdit_core.hosts.comfy import Outcome, graph
from ..vdit_core.outcome import Verdict, joined
from ..vdit_core.recording.recorder import Recorder
from ..vdit_core.recording.store import AttentionStore
from ..vdit_core.sinks.observer import SinkObserver
from ..vdit_core.sinks.record import SinkRecord
from .outcomes import Telling, tell_outcome
from .packed import packed

_ANEW = (
    "Connect `latent` to the sampler whose model comes from the same Record Attention, and queue again: the next run "
    "samples anew."
)
_OTHER_MODEL = "Record a model that the pack knows, or remove Record Attention and what hangs on it."


class NoRecording(VDiTError, RuntimeError):
    """There is no recording of the run that a latent came from."""


class Losses:
    """How often a recording was lost that another run would bring, by Record Attention's id. Its fingerprint holds it:
    after a loss its samplers run anew, instead of taking their latents from the cache again.
    """

    count = 0
    of: ClassVar[Counter[str | None]] = Counter()

    @classmethod
    def one(cls, node: str | None) -> None:
        cls.count += 1
        cls.of[node] += 1


@dataclass(eq=False)
class RecordedRun:
    """One sampling run of a recorder.

    sampled_by: the node that sampled. prompt: in which prompt. mark: of the latent that it gave. levels: the noise
    levels of its first and last step. verdict: what was said of it. store: what was recorded; once it is claimed, it
    lives as long as whoever claimed it. measured: statistics, if there are any.
    """

    sampled_by: str | None
    prompt: str | None
    mark: str
    levels: tuple[float, float]
    verdict: Verdict
    store: AttentionStore | None
    measured: SinkRecord | None
    claimed_by: str | None = None
    _claimed: weakref.ref[AttentionStore] | None = None

    def claim(self, by: str | None) -> AttentionStore | None:
        """The store, which this then only refers to; None if whoever had claimed it has let it go."""
        store, self.store = self.store, None
        if store is not None:
            self._claimed = weakref.ref(store)
        elif self._claimed is not None:
            store = self._claimed()
        self.claimed_by = by
        return store

    @property
    def is_lost(self) -> bool:
        return self.store is None and (self._claimed is None or self._claimed() is None)

    def __str__(self) -> str:
        return f"noise {self.levels[0]:.2f} to {self.levels[1]:.2f}"


@dataclass(frozen=True)
class Claimed:
    """What Finish Recording hands on. named: which of several runs it is, or None if there was one."""

    store: AttentionStore
    measured: SinkRecord | None
    verdict: Verdict
    named: str | None


@dataclass(eq=False)
class Recording:
    """A recorder and its runs, by the latent that each gave, and in their order.

    Runs that nobody has claimed are kept until the recorder's next prompt samples.
    """

    recorder: Recorder
    observer: SinkObserver | None = None
    node: str | None = None
    telling: Telling | None = None
    runs: list[RecordedRun] = field(default_factory=list)
    _prompt: str | None = None
    _why: str = "its sampler has not run"
    _remedy: str = _ANEW

    def __post_init__(self) -> None:
        _recordings.setdefault(self.node, weakref.WeakSet()).add(self)

    def ended(self, outcome: Outcome) -> None:
        """A sampling run has ended."""
        prompt = _running_prompt()
        if prompt != self._prompt:  # what is claimed may be asked for again, until its sampler runs anew
            self.runs = [r for r in self.runs if not (r.store or (r.is_lost and r.sampled_by == outcome.sampled_by))]
        self._prompt = prompt
        self._remedy = _ANEW
        if self.telling is not None:
            tell_outcome(self.telling, outcome, self.did)
        if outcome.stock is not None:
            self._why, self._remedy = f"the run was left to the stock model, because {outcome.stock}", _OTHER_MODEL
        elif outcome.samples is None or outcome.run is None or outcome.missed is not None:
            self._why = outcome.missed or "the sampling run did not end well, or never called the model"
        else:
            mark = _fingerprint(outcome.samples)
            self.runs = [run for run in self.runs if run.mark != mark or run.store is None]
            measured = None if self.observer is None else self.observer.record
            store, levels = self.recorder.take(), (outcome.run.sigmas[0], outcome.run.sigmas[-1])
            self.runs.append(RecordedRun(outcome.sampled_by, prompt, mark, levels, self.did(), store, measured))
            _samplers.setdefault(self.node, set()).add(outcome.sampled_by)
            self._why = "this latent is not what its sampler gave (take the sampler's latent itself, unchanged)"

    def did(self) -> Verdict:
        """What recorder and observer say of the last run."""
        if self.observer is None:
            return self.recorder.verdict()
        measured = self.observer.verdict()
        return measured if self.recorder.records_nothing else joined((self.recorder.verdict(), measured))

    def claim(self, latent: Tensor, upstream: Collection[str] = (), by: str | None = None) -> Claimed:
        """The recording of the run that gave this latent; if the latent of that run was hidden, since a node samples
        several times, the first run of that node that nobody has claimed.

        Args:
            upstream: the nodes that the latent comes from. by: the node that claims.

        Raises:
            NoRecording: if there is none, with the reason and what to do.
        """
        mark = _fingerprint(latent)
        theirs = [run for run in reversed(self.runs) if run.mark == mark]
        if not theirs:
            hidden = [run for run in self.runs if run.sampled_by in upstream]
            theirs = [run for run in hidden if run.claimed_by == by] or [run for run in hidden if not run.claimed_by]
        for run in theirs:
            if (store := run.claim(by)) is not None:
                return Claimed(store, run.measured, run.verdict, self._named(run, by_order=run.mark != mark))
        if self._remedy == _ANEW:
            Losses.one(self.node)
        raise NoRecording(f"There is no recording of this latent: {self._why}. {self._remedy}")

    def _named(self, run: RecordedRun, by_order: bool) -> str | None:
        together = [each for each in self.runs if each.prompt == run.prompt]
        if not by_order and len({each.levels for each in together}) == 1:
            return None
        return f"run {together.index(run) + 1} of {len(together)}: {run}"


#: By Record Attention's id: its recordings that are alive, and the nodes that have sampled its model.
_recordings: dict[str | None, weakref.WeakSet[Recording]] = {}
_samplers: dict[str | None, set[str | None]] = {}


def fingerprint_of(node: str | None) -> int:
    """How often Record Attention's recordings were lost; one more if the running prompt asks for one that is gone."""
    known, prompt = _recordings.get(node), graph.prompt_graph()
    if known is not None and _asked_for_what_is_gone(prompt, node, known):
        Losses.one(node)
    return Losses.of[node]


def _asked_for_what_is_gone(prompt: Mapping[str, Any], node: str | None, known: Collection[Recording]) -> bool:
    """Whether a Finish Recording of the prompt will find nothing, though its sampler's latent is in the cache."""
    for name, each in prompt.items():
        if each.get("class_type") != "VDiT_FinishRecording" or each["inputs"].get("recorder") != [node, 1]:
            continue
        samplers = set(graph.ids_upstream(prompt, name, "latent"))
        theirs = [run for recording in known for run in recording.runs if run.sampled_by in samplers]
        if samplers & _samplers.get(node, set()) and all(run.is_lost for run in theirs):
            return True
    return False


def _running_prompt() -> str | None:
    context = get_executing_context()
    return context.prompt_id if context else None


def _fingerprint(samples: Tensor) -> str:
    """SHA-256 of a latent as samplers hand it on, in the type that ComfyUI keeps between nodes."""
    dtype = getattr(comfy.model_management, "intermediate_dtype", lambda: torch.float32)()
    values = packed(samples).detach().to("cpu", dtype).contiguous()
    return hashlib.sha256(values.view(torch.uint8).numpy().tobytes()).hexdigest()

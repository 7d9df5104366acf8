"""Which recording belongs to which latent: one recorder may watch several sampling runs before any is asked for."""

from __future__ import annotations

import hashlib
from weakref import WeakKeyDictionary, WeakValueDictionary

import comfy.model_management
import torch
from comfy_execution.utils import get_executing_context
from torch import Tensor

from ..vdit_core.hosts.comfy import Outcome
from ..vdit_core.record import Recorder
from ..vdit_core.sinks.observe import SinkObserver
from ..vdit_core.sinks.record import SinkRecord
from ..vdit_core.store import AttentionStore

_ANEW = (
    "Connect `latent` to the sampler whose model comes from the same Record Attention, and queue again: the next run "
    "samples anew."
)
_OTHER_MODEL = "Record a model that the pack knows, or remove Record Attention and what hangs on it."


class Losses:
    """How often a recording was lost that another run would bring. Record Attention's fingerprint holds it: after a
    loss the next run samples anew, instead of taking the sampler's latent from the cache again.
    """

    count = 0


class NoRecording(RuntimeError):
    """There is no recording of the run that a latent came from."""


class Recording:
    """A recorder and what it recorded, by the latent that each run gave.

    Stores that nobody has claimed are kept while their prompt runs; a claimed one lives as long as its claimant.
    """

    def __init__(self, recorder: Recorder, observer: SinkObserver | None = None) -> None:
        self.recorder, self.observer = recorder, observer
        self._unclaimed: dict[str, AttentionStore] = {}
        self._claimed: WeakValueDictionary[str, AttentionStore] = WeakValueDictionary()
        self._measured: WeakKeyDictionary[AttentionStore, SinkRecord] = WeakKeyDictionary()
        self._prompt: str | None = None
        self._why, self._remedy = "its sampler has not run", _ANEW

    def ended(self, outcome: Outcome) -> None:
        """A sampling run has ended."""
        prompt = _running_prompt()
        if prompt != self._prompt:
            self._unclaimed.clear()
        self._prompt = prompt
        self._remedy = _ANEW
        if outcome.stock is not None:
            self._why, self._remedy = f"the run was left to the stock model, because {outcome.stock}", _OTHER_MODEL
        elif outcome.samples is None or outcome.run is None:
            self._why = "the sampling run did not end well, or never called the model"
        else:
            store = self.recorder.take()
            self._unclaimed[_fingerprint(outcome.samples)] = store
            if self.observer is not None:
                self._measured[store] = self.observer.record
            self._why = "this latent is not what its sampler gave (take the sampler's latent itself, unchanged)"

    def claim(self, latent: Tensor) -> tuple[AttentionStore, SinkRecord | None]:
        """The recording of the run that gave this latent, and what was measured of it if anything was.

        Raises:
            NoRecording: if there is none, with the reason and what to do.
        """
        mark = _fingerprint(latent)
        store = self._unclaimed.pop(mark, self._claimed.get(mark))
        if store is None:
            Losses.count += self._remedy == _ANEW
            raise NoRecording(f"There is no recording of this latent: {self._why}. {self._remedy}")
        self._claimed[mark] = store
        return store, self._measured.get(store)


def _running_prompt() -> str | None:
    context = get_executing_context()
    return context.prompt_id if context else None


def _fingerprint(samples: Tensor) -> str:
    """SHA-256 of a latent as samplers hand it on, in the type that ComfyUI keeps between nodes."""
    dtype = getattr(comfy.model_management, "intermediate_dtype", lambda: torch.float32)()
    values = samples.detach().to("cpu", dtype).contiguous()
    return hashlib.sha256(values.view(torch.uint8).numpy().tobytes()).hexdigest()

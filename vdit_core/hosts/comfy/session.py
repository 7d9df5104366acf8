"""One sampling run: what is known of it, what came by, and how it ends."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import torch
from torch import Tensor

from ...call import Chain, Interceptor, Row, Run, Site, TokenGrid
from ...coverage import numbered
from ...errors import VDiTError
from . import graph
from .errors import HostError, NotReached
from .guiders import absent, branch_names, branches_to_come, one_noise
from .models import Family, Parts, bare, family_of, network_of, unknown
from .outcome import Outcome
from .replaced import Replacements
from .samplers import evaluations
from .settings import noise_remedy, provenance
from .two_grids import Inputs, two_grids

if TYPE_CHECKING:
    from .attach import Attached
    from .override import Override


_SAME = 1e-3  # of noise levels
_WINDOWS = "context_handler"  # the model option in which ComfyUI keeps what cuts a video into windows


@dataclass(frozen=True)
class ModelCall:
    """One call of the model. rows: of its batch. visit: how often the run was at this noise level before.
    text: the tokens of its prompts. inputs: what decides its grid. parts: of the network that is called."""

    sigma: float
    visit: int
    rows: tuple[Row, ...]
    text: int | None
    inputs: Inputs
    parts: Parts


class Session:
    """One sampling run of a MODEL that interceptors are attached to."""

    def __init__(
        self,
        guider: Any,
        attached: Sequence[Attached],
        sampler: Any,
        sigmas: Tensor,
        noise: Tensor,
        latent: Tensor,
        seed: int | None,
    ) -> None:
        self.network = network_of(guider.model_patcher)
        self._family = family_of(self.network)
        self._parts: dict[int, Parts] = {}  # a host may have a copy of the network on each GPU
        self.attached = tuple(attached)
        self.chain = Chain([each.interceptor for each in self.attached])
        self.guider, self.sampler, self.noise, self.latent, self.seed = guider, sampler, noise, latent, seed
        self.sigmas = tuple(dict.fromkeys(sigmas[:-1].tolist()))  # where each step begins
        self.samples = len(noise)
        self.sampled_by = graph.executing_node()
        self.run: Run | None = None
        self.stock: str | None = None
        self.missed: str | None = None
        self._caveats: list[str] = []
        self._checks: dict[int, str] = {}  # by place in `attached`
        self._visits: Counter[tuple[str, float]] = Counter()
        self._names: dict[UUID, list[str]] = {}
        self._first: Inputs | None = None  # of the call that the run's grid is of
        self._confirmed = False  # whether an attention call has shown the run to be as it was described
        self._seen: set[int] = set()  # the layers whose self-attention came by
        self._looked = False  # whether a model call has shown if self-attention comes by
        self._active: list[Interceptor] = []  # who acts in this run, in any step
        self._layers: frozenset[int] = frozenset()  # in which layers
        self._error: tuple[str, list[Interceptor]] | None = None
        self._lock = threading.Lock()  # ComfyUI calls the model from one thread per GPU
        self._replacements = Replacements(guider.model_patcher, self.network, self._family)

    def open(self) -> None:
        """Before the sampler begins.

        Raises:
            HostError: if the model's tokens are not known, and the run is of no use then.
        """
        if (reason := unknown(self.network)) is not None:
            self.leave_to_stock(reason)

    @property
    def family(self) -> Family:
        """The model's family, in a run that is not left to the stock model."""
        assert self._family is not None
        return self._family

    def leave_to_stock(self, reason: str) -> None:
        """From here on the stock model computes the run.

        Raises:
            HostError: if the run is of no use then.
        """
        if self.stock is None:
            logging.warning("VDiT Attention: this run is computed by the stock model: %s.", reason)
        self.stock = self.stock or reason
        if needed := [each.interceptor for each in self.attached if each.required]:
            error = HostError(f"This run is to be recorded or measured, but {self.stock}.")
            self._error = str(error), needed
            raise error

    def note(self, caveat: str | None) -> None:
        """Something is not as interceptors need it."""
        if caveat is not None and caveat not in self._caveats:
            self._caveats.append(caveat)

    def model_call(
        self, model: Any, x: Tensor, t: Tensor, text: Tensor | None, options: dict[str, Any], conds: dict[str, Any]
    ) -> ModelCall:
        """A call of the model is about to begin; the first one begins the run.

        x holds one chunk of the batch per entry of options["uuids"].
        """
        if not self._names:
            self._names = branch_names(self.guider.conds)
        sigma, uuids = float(t.max()), options["uuids"]
        # A conditioning that another node made up on the way has no name of its own.
        branches = [
            self._names.get(uuid, ["other"] * len(uuids))[uuids[:i].count(uuid)] for i, uuid in enumerate(uuids)
        ]
        samples = len(x) // len(branches)
        rows = tuple(Row(branch, i) for branch in branches for i in range(samples))
        grid = self.family.grid_of(self.network, x, conds)
        inputs = Inputs.of(grid, x, options, conds, branches)
        with self._lock:
            visit = self._visits[branches[0], sigma]
            for branch in branches:
                self._visits[branch, sigma] += 1
            if self.run is None:
                self._first = inputs
                self._begin(self._describe(grid, model.get_dtype_inference(), x, samples, sigma))
        return ModelCall(sigma, visit, rows, None if text is None else text.shape[1], inputs, self._parts_of(model))

    def with_driven(self, model: Any, x: Tensor, call: ModelCall) -> Tensor:
        """A model call's latents with those that come from outside in their rows.

        Raises:
            HostError: if the sampler adds no noise, so that none is known for them.
        """
        if not self.chain.driven:
            return x
        x, sampling = x.clone(), model.model_sampling
        for n, row in enumerate(call.rows):
            latent = self.chain.driven.get(row.sample)
            if latent is None:
                continue
            noise, wrong = self.noise[row.sample].to(x), None
            if not bool(noise.any()):
                wrong = (
                    "This sampler adds no noise, as a second expert does, so the footage cannot be noised as in the "
                    "first one. Use Edit Footage, which works in both experts, or sample with one model."
                )
            elif latent.shape[1:] != x.shape[1:]:
                given, own = (" x ".join(map(str, one.shape[1:])) for one in (latent, x))
                wrong = f"The footage's latent is {given}, and the sampler's is {own}: they must be alike."
            if wrong is not None:
                self._error = wrong, [each for each in self.chain.interceptors if each.driven]
                raise HostError(wrong)
            latent = model.process_latent_in(latent.to(x))[0]
            x[n] = sampling.noise_scaling(torch.tensor(call.sigma, device=x.device, dtype=x.dtype), noise, latent)
        return x

    def _parts_of(self, model: Any) -> Parts:
        network = bare(model.diffusion_model)
        with self._lock:
            if id(network) not in self._parts:
                self._parts[id(network)] = self.family.parts_of(network)
            return self._parts[id(network)]

    def looks_at(self, call: ModelCall) -> bool:
        """Whether anybody wants to see a model call; of the first one, whether self-attention comes by."""
        assert self.run is not None
        if not self._looked:
            return bool(self._layers)
        return any(self.chain.wants(self._site(self.run, layer, call)) for layer in self._layers)

    def came_by(self, override: Override, options: dict[str, Any]) -> None:
        """A model call that was looked at has ended.

        Raises:
            NotReached: if no self-attention came by in the first one, and the run is of no use then.
        """
        self._seen |= override.seen
        if self.stock is not None:
            return
        if override.seen and self.missed is not None:
            self.note(f"in the first steps: {self.missed}")
            self.missed = None
        if self._looked or override.seen:
            lost = self._layers - override.seen if not self._looked else self._layers - self._seen
            if (not override.seen or lost) and self.missed is None:
                self._note_replaced(options, lost)
            self._looked = True
            return
        self._looked = True
        self.missed = " ".join(self._replacements.why(options, override.strange))
        acting = [each for each in self.attached if each.interceptor in self._active]
        if needed := [each.interceptor for each in acting if each.required]:
            error = NotReached(self.missed)
            self._error = str(error), needed
            raise error
        logging.warning("VDiT Attention: %s", self.missed)
        for each in acting:
            if each.on_missed is not None:
                each.on_missed(self.missed)

    def _note_replaced(self, options: dict[str, Any], lost: frozenset[int]) -> None:
        """A part of the self-attention did not come by; who is to blame, if that can be seen."""
        culprit = self._replacements.culprit(options)
        if culprit is not None:
            where = numbered("layer", set(lost)) if lost else "some steps"
            self.note(f"in {where} {culprit}")

    def self_attention_is_replaced(self) -> bool:
        """Whether another node put its own function in the place of the blocks' self-attention."""
        return self._replacements.of_self_attention()

    def site(self, layer: int, grid: TokenGrid, dtype: torch.dtype, call: ModelCall) -> Site:
        """Where a self-attention call is.

        Raises:
            HostError: if the grid changes within the run and an interceptor cannot follow.
        """
        with self._lock:
            assert self.run is not None
            run = self.run
            if not self._confirmed:
                self._confirmed = True
                if (grid, dtype) != (run.grid, run.dtype):  # the model has tokens that were not counted
                    self.chain.end(completed=False)
                    run = replace(run, grid=grid, dtype=dtype)
                    self._begin(run)
        if grid != run.grid:
            if strict := [interceptor for interceptor in self._active if not interceptor.any_grid]:
                assert self._first is not None
                error = HostError(two_grids(self._first, call.inputs, [type(each).__name__ for each in strict]))
                self._error = str(error), strict
                raise error
            run = replace(run, grid=grid)
        return self._site(run, layer, call)

    def _site(self, run: Run, layer: int, call: ModelCall) -> Site:
        return Site(run, layer, run.step_of(call.sigma), call.sigma, call.visit, call.rows)

    def _describe(self, grid: TokenGrid, dtype: torch.dtype, x: Tensor, samples: int, sigma: float) -> Run:
        start = self.noise[:1] if one_noise(self.guider) else self.noise
        if abs(sigma - 1) < _SAME and abs(self.sigmas[0] - 1) < _SAME and x.shape[1:] == self.noise.shape[1:]:
            start = x[:samples]  # what the sampler really begins with, whoever drew it
        for n, each in enumerate(self.attached):
            if each.check is not None and (wrong := each.check(self.guider.conds, self.latent, self.noise)) is not None:
                self._checks[n] = wrong
        return Run(
            self.family.signature_of(self.network),
            grid,
            self.sigmas,
            branches_to_come(self.guider),
            samples,
            dtype,
            self.family.kind_of(self.network),
            absent(self.guider, self.sigmas),
            evaluations(self.sampler),
            not self.chain.one_noise or bool((start == start[:1]).all()),
            noise_remedy(self.sampled_by, bool(self._checks)),
            provenance(self.guider, self.sampler, start, self.noise, self.seed, self.sampled_by),
            bool(self.family.text),
        )

    def _begin(self, run: Run) -> None:
        self.chain.begin(run)
        self.run = run
        acts = {each: _layers_of(each, run) for each in self.chain.interceptors}
        self._active = [each for each in self.chain.interceptors if acts[each]]
        self._layers = frozenset[int]().union(*acts.values())

    def broke_off(self, error: BaseException) -> None:
        """Keep what an interceptor raised, for the node that added it.

        Raises:
            HostError: instead of an error of ComfyUI's own that says nothing of its cause.
        """
        live = [interceptor for interceptor in self.chain.interceptors if interceptor.one_noise]
        if isinstance(error, IndexError) and live and self.samples > 1 and self.guider.model_options.get(_WINDOWS):
            found = HostError(
                f"ComfyUI's context windows failed on a batch of {self.samples} videos ({error}), and a live transfer "
                "is such a batch. Make the video short enough to do without windows; or record the source and transfer "
                "it, with Context Windows (Manual), its causal window fix off and a static schedule, on both samplers."
            )
            self._error = str(found), live
            raise found from None
        if self._error is None and isinstance(error, VDiTError) and error.raised_by is not None:
            self._error = str(error), [error.raised_by]

    def close(self, samples: Tensor | None) -> None:
        """The run has ended; samples: None if it broke off."""
        reached = self.stock is None and self.missed is None
        try:
            self.chain.end(completed=samples is not None and self.run is not None and reached)
        except BaseException as error:
            samples = None
            self.broke_off(error)
            raise
        finally:
            for n, each in enumerate(self.attached):
                if each.on_end is not None:
                    each.on_end(self._outcome(samples, each.interceptor, self._checks.get(n)))

    def _outcome(self, samples: Tensor | None, interceptor: Interceptor, wrong: str | None) -> Outcome:
        error, blamed = self._error or (None, [])
        caveat = "; ".join(filter(None, (*self._caveats, wrong))) or None
        missed = self.missed if interceptor in self._active else None
        error = error if interceptor in blamed else None
        return Outcome(samples, self.run, self.stock, missed, caveat, error, self.sampled_by)


def _layers_of(interceptor: Interceptor, run: Run) -> frozenset[int]:
    """The layers of which an interceptor wants any call, in any step."""
    rows = tuple(Row(branch, sample) for branch in run.branches for sample in range(run.samples))
    levels = list(enumerate(run.sigmas))
    return frozenset(
        layer
        for layer in range(run.model.layers)
        if any(interceptor.wants(Site(run, layer, step, sigma, 0, rows)) for step, sigma in levels)
    )

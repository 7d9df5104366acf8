"""One run of a pipeline: what is known of it, and where each of its attention calls is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...call import Chain, ModelSignature, Run, Site
from ...provenance import Provenance, fingerprint

if TYPE_CHECKING:
    from .models.family import Family

#: Schedulers by the names that ComfyUI has for the same samplers.
_SAMPLERS = {"FlowMatchEulerDiscreteScheduler": "euler", "FlowMatchHeunDiscreteScheduler": "heun"}


class Session:
    """What one run's hooks share."""

    def __init__(self, pipe: Any, family: Family, chain: Chain, branches: Sequence[str] | None = None) -> None:
        self.pipe, self.family, self.chain = pipe, family, chain
        self.branches = None if branches is None else tuple(branches)
        self.run: Run | None = None
        self.visits: Counter[tuple[str, float]] = Counter()
        self.calls = 0
        self._noise: dict[int, Tensor] = {}  # of driven samples

    def model_call(self, model: Any, context: str | None, inputs: Mapping[str, Any]) -> None:
        """A forward pass of the transformer begins; the first one begins the run. inputs: of it, by name."""
        timesteps, hidden = self.pipe.scheduler.timesteps, inputs["hidden_states"]
        if self.run is None:
            self.timesteps = timesteps
            self.levels = self.family.levels(self.pipe)
            run = self._describe(model, inputs)
            self.chain.begin(run)
            self.run = run
        elif timesteps is not self.timesteps:
            raise RuntimeError("A second sampling run began inside one attach() block: open a block for each run.")
        rows = self.family.rows(context, len(hidden), self.run, self.calls)
        if unknown := {row.branch for row in rows} - set(self.run.branches):
            raise RuntimeError(
                f"This run computes the prompt {sorted(unknown)[0]!r}, and only {', '.join(self.run.branches)} was "
                'announced: write attach(pipe, ..., branches=("cond", "uncond")).'
            )
        sigma = self.levels[self.family.step(self.pipe, inputs["timestep"])]
        self.here: dict[str, Any] = {
            "step": self.run.step_of(sigma),
            "sigma": sigma,
            "visit": self.visits[rows[0].branch, sigma],
            "rows": rows,
        }
        for branch in {row.branch for row in rows}:
            self.visits[branch, sigma] += 1
        self.calls += 1

    def with_driven(self, model: Any, inputs: Mapping[str, Any]) -> Tensor:
        """The forward pass's hidden states with the latents that come from outside in their rows."""
        hidden: Tensor = inputs["hidden_states"]
        if not self.chain.driven:
            return hidden
        hidden = hidden.clone()
        of_video = self.family.noise_of(model, {**inputs, "hidden_states": hidden})  # a view of it
        sigma = self.here["sigma"]
        for n, row in enumerate(self.here["rows"]):
            latent = self.chain.driven.get(row.sample)
            if latent is None:
                continue
            latent = latent.to(hidden)[0]
            if row.sample not in self._noise:  # the run starts from the latent, or from noise alone
                self._noise[row.sample] = (of_video[n] - (1 - sigma) * latent) / sigma
            of_video[n] = sigma * self._noise[row.sample] + (1 - sigma) * latent
        return hidden

    def _describe(self, model: Any, inputs: Mapping[str, Any]) -> Run:
        family, hidden = self.family, inputs["hidden_states"]
        branches = self.branches or family.branches(self.pipe)
        samples = family.samples(len(hidden), branches)
        noise = family.noise_of(model, inputs)[:samples]
        counts = {kind: len(getattr(model, name)) for kind, name in family.blocks}
        return Run(
            ModelSignature.of_blocks(counts, *family.heads(model.config)),
            family.grid_of(model, inputs),
            tuple(dict.fromkeys(self.levels)),
            branches,
            samples,
            hidden.dtype,
            family.kind_of(model.config),
            evaluations=max(Counter(self.levels).values()),
            one_noise=not self.chain.one_noise or bool((noise == noise[:1]).all()),
            made=self._provenance(noise, family.size_of(inputs)),
            joint=bool(family.text),
        )

    def _provenance(self, noise: Tensor, size: tuple[int, int, int]) -> Provenance:
        pipe, config = self.pipe, self.pipe.scheduler.config
        frames, height, width = size
        of_video: dict[str, Any] = {}
        if (scales := self.family.vae_scales(pipe)) is not None:
            spatial, temporal = scales
            of_video = {"width": width * spatial, "height": height * spatial, "frames": (frames - 1) * temporal + 1}
        return Provenance(
            **of_video,
            shift=config.get("flow_shift", config.get("shift")),
            sampler=_SAMPLERS.get(type(pipe.scheduler).__name__),
            cfg=self.family.cfg(pipe),
            noise=fingerprint(noise) if self.levels[0] > 0.999 else (),
        )

    def reached_the_end(self) -> bool:
        """Whether the last step was computed; a pipeline that is told to interrupt skips the rest without an error."""
        return self.run is not None and self.here["step"] == self.run.steps - 1

    def site(self, layer: int) -> Site:
        """Where a self-attention call is, in the forward pass that is under way."""
        assert self.run is not None
        return Site(run=self.run, layer=layer, **self.here)


def nearest(timesteps: Tensor, timestep: Tensor) -> int:
    """Which of a scheduler's timesteps a model call is at."""
    return int((timesteps.float() - float(torch.as_tensor(timestep).max())).abs().argmin())

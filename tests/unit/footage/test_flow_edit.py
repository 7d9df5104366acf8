"""An edit follows the difference of two velocities: against the algorithm written out, in float64."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from vdit_core.footage.config import EditConfig, FootageError, first_step
from vdit_core.footage.flow_edit import FlowEdit, straight

SHAPE = (1, 4, 3, 6, 8)
LEVELS = [0.9, 0.7, 0.45, 0.2, 0.1, 0.0]


def drawn(seed: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Model:
    """Predicts x0 by another map for each row, neither linear nor the same at every place."""

    def __init__(self, rows: int) -> None:
        self.weights = [drawn(100 + row) for row in range(rows)]
        self.calls: list[tuple[Tensor, float]] = []

    def __call__(self, rows: Tensor, sigma: float) -> Tensor:
        self.calls.append((rows, sigma))
        return torch.cat([torch.tanh(x * w + sigma) for x, w in zip(rows.split(1), self.weights, strict=True)])


def euler(flow: FlowEdit, model: Model, targets: int) -> Tensor:
    edits = flow.footage.expand(targets, *SHAPE[1:]).clone()
    for sigma, following in pairwise(LEVELS):
        denoised = flow.denoised(edits, sigma, model)
        edits = edits + (edits - denoised) / sigma * (following - sigma)
    return edits


@pytest.mark.parametrize("draws", [1, 2, 3])
def test_it_is_the_algorithm_of_the_paper(draws: int) -> None:
    footage = drawn(1)
    flow = FlowEdit(footage, EditConfig(draws=draws, finish=0), seed=5)
    found = euler(flow, Model(3), 2)

    model, expected = Model(3), [footage.clone(), footage.clone()]
    for sigma, following in pairwise(LEVELS):
        steps = [torch.zeros_like(footage) for _ in expected]
        for draw in range(draws):
            source = (1 - sigma) * footage + sigma * flow.noise(sigma, draw)
            targets = [edit + source - footage for edit in expected]
            rows = torch.cat([source, *targets])
            velocities = (rows - model(rows, sigma)) / sigma
            for step, velocity in zip(steps, velocities[1:], strict=True):
                step += (velocity - velocities[0]) / draws
        expected = [edit + (following - sigma) * step for edit, step in zip(expected, steps, strict=True)]
    torch.testing.assert_close(found, torch.cat(expected), rtol=0, atol=1e-12)
    assert flow.evaluations == len(model.calls) == 5 * draws


def test_one_prompt_for_both_changes_nothing() -> None:
    footage = drawn(1)
    model = Model(1)
    model.weights *= 2
    assert torch.equal(euler(FlowEdit(footage, EditConfig(finish=0), seed=0), model, 1), footage)


def test_a_finishing_step_gives_what_the_model_makes_of_the_noised_edit() -> None:
    footage, edit = drawn(1), drawn(2)
    flow = FlowEdit(footage, EditConfig(finish=0.15), seed=3, last=0.1)
    model = Model(2)
    found = flow.denoised(edit, 0.1, model)
    (rows, _), noise = model.calls[0], flow.noise(0.1, 0)
    torch.testing.assert_close(rows[1:], straight(0.1, noise, edit))
    assert torch.equal(found, Model(2)(rows, 0.1)[1:])
    other = FlowEdit(footage, EditConfig(finish=0.05), seed=3, last=0.1).denoised(edit, 0.1, Model(2))
    assert not torch.allclose(found, other)


def test_what_hardly_moved_is_put_back() -> None:
    footage = drawn(1)
    edit = footage + 0.01
    edit[:, :, 1, 2:4, 3:5] += 1.0
    found = FlowEdit(footage, EditConfig(hold=0.25), seed=0).held(edit)
    moved = torch.zeros(SHAPE[2:], dtype=torch.bool)
    moved[1, 1:5, 2:6] = True  # and one latent around
    assert torch.equal(found[..., moved], edit[..., moved])
    assert torch.equal(found[..., ~moved], footage[..., ~moved])
    assert torch.equal(FlowEdit(footage, EditConfig(), seed=0).held(edit), edit)


def test_noise_depends_on_seed_and_level_alone() -> None:
    first, again = (FlowEdit(drawn(n), EditConfig(), seed=7) for n in (1, 2))
    assert torch.equal(first.noise(0.5, 0), again.noise(0.5, 0))
    others = [again.noise(0.4, 0), again.noise(0.5, 2), FlowEdit(drawn(1), EditConfig(), seed=8).noise(0.5, 0)]
    assert all(abs(torch.corrcoef(torch.stack([first.noise(0.5, 0).ravel(), x.ravel()]))[0, 1]) < 0.2 for x in others)
    assert torch.equal(first.noise(0.5, 1), -first.noise(0.5, 0))
    assert 0.9 < float(first.noise(0.5, 0).std()) < 1.1


def test_the_largest_seed_of_comfyui() -> None:
    assert FlowEdit(drawn(1), EditConfig(), seed=2**64 - 1).noise(0.5, 0).isfinite().all()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"change": 0.0}, "change is 0.0"),
        ({"change": 1.01}, "change is 1.01"),
        ({"source_guidance": -1.0}, "source_guidance is -1.0"),
        ({"target_guidance": float("nan")}, "target_guidance is nan"),
        ({"draws": 0}, "0 draws"),
        ({"finish": -0.1}, "finish is -0.1"),
        ({"hold": 2.0}, "hold is 2.0"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(values: dict[str, float], said: str) -> None:
    with pytest.raises(FootageError, match=said):
        EditConfig(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(("start", "first"), [(1.0, 0), (0.9, 0), (0.89999999, 0), (0.7, 1), (0.05, 5)])
def test_the_first_step_is_the_first_that_is_not_above_the_start(start: float, first: int) -> None:
    assert first_step(LEVELS[:-1], start) == first

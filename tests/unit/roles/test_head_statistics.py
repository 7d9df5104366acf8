"""Streamed figures of heads against the plain map in float64."""

from __future__ import annotations

import math

import planted_heads as planted
import pytest
import torch

from vdit_core.call import TokenGrid
from vdit_core.roles import statistics
from vdit_core.roles.statistics import HeadFigures, head_figures, uniform

GRIDS = [TokenGrid(3, 4, 5), TokenGrid(1, 2, 7), TokenGrid(2, 3, 4, prefix=3, suffix=2), TokenGrid(5, 1, 1)]
MASS = ("own", "near", "place", "path", "first", "sinks", "entropy", "match")


def tensors(grid: TokenGrid, seed: int = 0, scale: float = 2.0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(2, 2, 3, grid.tokens, 8, generator=generator)).unbind(0)


def dense(q, k, grid: TokenGrid) -> dict[str, torch.Tensor]:
    """The figures from the whole map, pair of tokens by pair of tokens."""
    whole = (q.double() @ k.double().mT / math.sqrt(q.shape[-1])).softmax(-1)
    inside = slice(grid.prefix, grid.tokens - grid.suffix)
    placed = whole[..., inside, inside]
    frame, y, x = planted.places(grid)
    gap, down, right = (at - at[:, None] for at in (frame, y, x))

    def share(pairs, queries=None):
        mass = (placed * pairs).sum(-1)
        return mass.mean(-1) if queries is None else mass[..., queries].mean(-1)

    def at(down_to, right_to):
        near = (down - down_to.round()).abs() <= statistics.NEAR
        return near & ((right - right_to.round()).abs() <= statistics.NEAR)

    later = frame > 0
    found = {
        "own": share(gap == 0),
        "near": share((gap == 0) & (down.abs() <= 1) & (right.abs() <= 1)),
        "place": share((gap != 0) & (down.abs() <= 1) & (right.abs() <= 1)),
        "first": share((frame == 0).expand_as(gap), later) if bool(later.any()) else torch.zeros(q.shape[:2]).double(),
        "sinks": whole.mean(-2).topk(max(1, round(0.01 * grid.tokens))).values.sum(-1),
        "entropy": -(whole * whole.log()).sum(-1).mean(-1) / math.log(grid.tokens),
    }
    moved, path, match = torch.zeros(*q.shape[:2], 2).double(), [], []
    for row in range(q.shape[0]):
        for head in range(q.shape[1]):
            weights = placed[row, head]
            means = {}
            for a in range(1 - grid.height, grid.height):
                for b in range(1 - grid.width, grid.width):
                    pairs = (gap.abs() == 1) & (down * gap == a) & (right * gap == b)
                    overlap = (grid.height - abs(a)) * (grid.width - abs(b)) / (grid.height * grid.width)
                    if overlap >= 0.25 and bool(pairs.any()):
                        means[a, b] = float(weights[pairs].mean())
            level = sum(means.values()) / len(means) if means else 0.0
            above = {place: max(0.0, mean - 1.001 * level) ** 2 for place, mean in means.items()}
            if total := sum(above.values()):
                moved[row, head] = torch.tensor(
                    [sum(place[n] * weight for place, weight in above.items()) / total for n in (0, 1)]
                )
            v = moved[row, head]
            along = at(gap * v[0], gap * v[1]) & (gap != 0)
            path.append(float((weights * along).sum(-1).mean()))
            beside = gap.abs() == 1
            all_of = float((weights * beside).sum())
            match.append(
                float((weights * (at(*(v * 1)[:, None, None] * gap) & beside)).sum()) / all_of if all_of else 0
            )
    shape = q.shape[:2]
    return found | {
        "displacement": moved,
        "path": torch.tensor(path).view(shape),
        "match": torch.tensor(match).view(shape),
    }


@pytest.fixture(params=["one chunk", "many chunks"])
def chunks(request, monkeypatch):
    if request.param == "many chunks":
        monkeypatch.setattr("vdit_core.attention.reference.CHUNK_BYTES", 4 * 40 * 3)
        monkeypatch.setattr("vdit_core.maps.sums.MIN_ROWS", 1)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_exact_figures_are_those_of_the_plain_map(grid):
    q, k = tensors(grid)
    found = head_figures(q, k, grid)
    for name, expected in dense(q, k, grid).items():
        torch.testing.assert_close(getattr(found, name).double(), expected.double(), rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_map_without_preference_has_the_level_figures(grid):
    q, k = tensors(grid)
    found = head_figures(q, 0 * k, grid)
    for name, expected in uniform(grid).items():
        torch.testing.assert_close(getattr(found, name), expected.expand_as(getattr(found, name)), rtol=0, atol=1e-6)


def test_all_queries_sampled_is_exact():
    grid = TokenGrid(4, 4, 8)
    q, k = tensors(grid)
    exact, sampled = head_figures(q, k, grid), head_figures(q, k, grid, queries=grid.tokens)
    for name, value in exact.items():
        torch.testing.assert_close(getattr(sampled, name), value, rtol=0, atol=1e-6)


def test_a_sample_lies_around_the_exact_figures():
    grid = TokenGrid(4, 8, 8)
    q, k = tensors(grid, scale=1.0)
    exact = head_figures(q, k, grid)
    drawn = [head_figures(q, k, grid, queries=128, seed=seed) for seed in range(12)]
    for name in ("own", "near", "place", "first", "entropy"):
        values = torch.stack([getattr(one, name) for one in drawn])
        error = values.std(0) / math.sqrt(len(drawn))
        assert bool((values.std(0) > 0).all())
        assert bool(((values.mean(0) - getattr(exact, name)).abs() < 5 * error + 1e-4).all()), name


def test_mirrored_videos_move_the_other_way():
    grid = TokenGrid(3, 5, 6)
    q, k = planted.head(grid, planted.moving(grid, 1, 1))
    mirrored = [x.unflatten(0, (3, 5, 6)).flip(2).flatten(0, 2)[None, None] for x in (q, k)]
    found, other = head_figures(q[None, None], k[None, None], grid), head_figures(*mirrored, grid)
    torch.testing.assert_close(other.displacement, found.displacement * torch.tensor([1.0, -1.0]), rtol=0, atol=1e-4)
    for name in MASS:
        torch.testing.assert_close(getattr(other, name), getattr(found, name), rtol=0, atol=1e-5)


def test_time_backwards_turns_the_displacement_round():
    grid = TokenGrid(4, 5, 5)
    q, k = planted.head(grid, planted.moving(grid, 0, 1))
    back = [x.unflatten(0, (4, 25)).flip(0).flatten(0, 1)[None, None] for x in (q, k)]
    found, other = head_figures(q[None, None], k[None, None], grid), head_figures(*back, grid)
    torch.testing.assert_close(other.displacement, -found.displacement, rtol=0, atol=1e-4)
    torch.testing.assert_close(other.path, found.path, rtol=0, atol=1e-5)


def test_scores_shifted_for_all_keys_change_nothing():
    grid = TokenGrid(3, 4, 4)
    q, k = tensors(grid)
    found, shifted = head_figures(q, k, grid), head_figures(q, k + 3.0, grid)
    for name, value in found.items():
        torch.testing.assert_close(getattr(shifted, name), value, rtol=0, atol=1e-4)


def test_rows_and_heads_do_not_depend_on_one_another():
    grid = TokenGrid(3, 4, 5)
    q, k = tensors(grid)
    whole, alone = head_figures(q, k, grid), head_figures(q[1:, 2:], k[1:, 2:], grid)
    for name, value in whole.items():
        torch.testing.assert_close(getattr(alone, name), value[1:, 2:], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "queries", "message"),
    [((1, 1, 60, 4), 5, "5 sampled queries"), ((1, 1, 59, 4), None, r"are not \(rows, heads, 60, head_dim\)")],
)
def test_what_does_not_fit_is_named(shape, queries, message):
    x = torch.zeros(shape)
    with pytest.raises(ValueError, match=message):
        head_figures(x, x, TokenGrid(3, 4, 5), queries=queries)


def test_figures_are_float32_on_the_cpu():
    grid = TokenGrid(2, 3, 3)
    q, k = tensors(grid)
    found = head_figures(q.bfloat16(), k.bfloat16(), grid)
    assert isinstance(found, HeadFigures)
    assert {value.dtype for _, value in found.items()} == {torch.float32}
    assert found.displacement.shape == (2, 3, 2)

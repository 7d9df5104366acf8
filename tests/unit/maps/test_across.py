"""Two models' attention side by side: recordings whose maps are made to fall with distance in a known way."""

from __future__ import annotations

import json
import math

import pytest
import torch
from PIL import Image

from vdit_core.call import ModelSignature, TokenGrid
from vdit_core.cli import main
from vdit_core.maps import across
from vdit_core.maps.needed import Published
from vdit_core.recording.store import AttentionStore, Evaluation, Header, Key

ONE, OTHER = ModelSignature(3, 2, 8), ModelSignature(5, 4, 8)


def recording(model: ModelSignature, grid: TokenGrid, decay: tuple[float, float, float], seed: int = 0, kind: str = ""):
    """A recording of maps whose weights are exp(-d^2) of the distance in frames, rows and columns, each times its
    decay, and a little noise."""
    header = Header(model, grid, (1.0, 0.5), tuple(range(model.heads)), 1, "none", "float32", kind)
    store, generator = AttentionStore(header), torch.Generator().manual_seed(seed)
    axes = [torch.arange(n).double() for n in (grid.frames, grid.height, grid.width)]
    places = torch.stack([x.flatten() for x in torch.meshgrid(*axes, indexing="ij")], dim=-1)
    places = places * torch.tensor(decay).double()
    squares = places.square().sum(-1, keepdim=True)
    zeros = torch.zeros_like(places[:, :1])
    q = torch.cat([2 * places, zeros - 1, zeros, zeros, zeros, zeros], dim=-1)
    k = torch.cat([places, squares, zeros, zeros, zeros, zeros], dim=-1)
    for layer in range(model.layers):
        noise = 0.05 * torch.randn(2, model.heads, *q.shape, generator=generator)
        one, two = ((math.sqrt(8) ** 0.5) * x.float() for x in (q, k))
        store.put(Key(Evaluation(1.0), "cond", layer), (one + noise[0])[None], (two + noise[1])[None])
    store.finish()
    return store


def compared(first: AttentionStore, second: AttentionStore) -> across.AcrossModels:
    return across.compare_models(*(across.figures_of(store) for store in (first, second)))


LOCAL, IN_TIME = (0.6, 0.7, 0.7), (2.5, 0.05, 0.05)
SMALL, LARGE = TokenGrid(5, 4, 6), TokenGrid(7, 6, 5)


def test_models_that_attend_alike_are_alike_whatever_their_shape():
    means = compared(recording(ONE, SMALL, LOCAL), recording(OTHER, LARGE, LOCAL)).means()
    assert min(means["time"], means["space"], means["frames"]) > 0.95
    assert means["roles"] == 1


def test_models_that_attend_differently_are_not():
    """One falls with distance in time and not in space, the other the other way round."""
    means = compared(recording(ONE, SMALL, IN_TIME), recording(OTHER, LARGE, (0.02, 0.9, 0.9))).means()
    assert max(means["time"], means["space"], means["frames"]) < 0.3
    assert means["roles"] == 0


def test_a_recording_equals_itself():
    found = compared(recording(ONE, SMALL, LOCAL), recording(ONE, SMALL, LOCAL))
    assert found.means() == dict.fromkeys(across.MEASURES, 1.0)


@pytest.mark.parametrize(
    ("decay", "role"), [((0.1, 3.0, 3.0), "same place"), ((3.0, 0.1, 0.1), "own frame"), ((0.05, 0.05, 0.05), "spread")]
)
def test_roles(decay, role):
    shares = across.figures_of(recording(ONE, SMALL, decay)).shares()
    assert shares[across.ROLES.index(role)] == 1


def test_grids_too_small_to_tell_say_so():
    found = compared(recording(ONE, TokenGrid(2, 4, 6), LOCAL), recording(OTHER, LARGE, LOCAL))
    assert found.means()["time"] is None
    assert "too small a grid" in across.verdict(found)


def test_text_and_file_hold_both_models_and_the_baseline():
    first, second = recording(ONE, SMALL, LOCAL, kind="one"), recording(OTHER, LARGE, LOCAL, kind="other")
    found = compared(first, second)
    baseline = compared(first, recording(ONE, SMALL, LOCAL, seed=1, kind="one"))
    text = across.verdict(found, baseline)
    assert "one, 3 layers x 2 heads x 8" in text
    assert "other, 5 layers x 4 heads x 8" in text
    assert "two recordings of the first" in text
    whole = json.loads(across.as_json(found, baseline))
    assert whole["compared"]["means"] == found.means()
    assert len(whole["compared"]["second"]["depth"]) == 5
    assert whole["compared"]["layers"]["time"][0] == pytest.approx(float(found.measured["time"][0]), abs=1e-4)


def test_heads_of_models_of_one_shape_are_ranked_by_the_keys_they_need():
    first, second = recording(ONE, SMALL, LOCAL, kind="one"), recording(ONE, LARGE, LOCAL, seed=3, kind="other")
    found, itself = compared(first, second), compared(first, first)
    needed = found.first.needed
    assert itself.rank_correlation == pytest.approx(1)
    assert found.rank_correlation == needed.rank_correlation(found.second.needed)
    published = Published("a model", -needed.values)
    text = across.verdict(found, itself, published=(None, published))
    assert f"{found.rank_correlation:.2f} (the two models), 1.00 (two recordings of the first)" in text
    assert "(second and a model, published)" in text
    assert "(first and a model, published)" not in text
    assert json.loads(across.as_json(found, published=(published,)))["published"]["first"][
        "rank_correlation"
    ] == pytest.approx(-1)
    assert "cannot be paired" not in text


def test_heads_of_models_of_two_shapes_cannot_be_paired():
    found = compared(recording(ONE, SMALL, LOCAL), recording(OTHER, LARGE, LOCAL))
    assert found.rank_correlation is None
    assert "The layers and heads of the two models cannot be paired: 3 x 2 and 5 x 4." in across.verdict(found)


def test_two_models_are_told_from_two_recordings():
    first = recording(ONE, SMALL, LOCAL, kind="one")
    assert across.are_of_two_models(first, recording(OTHER, SMALL, LOCAL, kind="one"))
    assert across.are_of_two_models(first, recording(ONE, SMALL, LOCAL, kind="other"))
    assert not across.are_of_two_models(first, recording(ONE, LARGE, LOCAL, kind="one"))


def test_the_command_compares_two_files(tmp_path, capsys):
    for name, model, grid in (("first", ONE, SMALL), ("second", OTHER, LARGE)):
        recording(model, grid, LOCAL, kind=name).save(tmp_path / f"{name}.safetensors")
    files = [str(tmp_path / f"{name}.safetensors") for name in ("first", "second")]
    main(["compare", *files, "--baseline", files[0], "--window", "all", "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert "first, 3 layers x 2 heads x 8, on 5 x 4 x 6" in said
    assert json.loads((tmp_path / "out" / "compare.json").read_text())["baseline"]["means"]["frames"] == 1
    assert Image.open(tmp_path / "out" / "across.png").size == (1100, 820)

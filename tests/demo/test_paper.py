"""`vdit paper`: what its verdicts say of numbers, and that its page is whole and stands alone."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import torch
from PIL import Image

from vdit_core.call import TokenGrid
from vdit_core.cli import main
from vdit_core.demo import paper, verdicts
from vdit_core.demo.model import DemoModel
from vdit_core.demo.pairs import DISTANCES, PAIRS, PairResult
from vdit_core.demo.verdicts import AGREES, DIFFERS, OPEN, PARTLY
from vdit_core.tiny_wan.files import FRAMES, SIZE
from vdit_core.transfer import TransferReport

UNIFORM = {"same_frame": 0.2, "same_place": 0.1}
NEAR, FAR = {"same_frame": 0.5, "same_place": 0.4}, {"same_frame": 0.2, "same_place": 0.1}
STRIPED = {"diagonal": 20.0, "stripes": 8.0, "squares": 2.0, "elsewhere": 0.5}
FLAT = dict.fromkeys(verdicts.PLACES, 1.0)


def scores(plain: float, transfer: float, seen: tuple[float, float], edit: str = "colour", size: float = 10):
    """A pair's scores: px of the plain target and of the transfer, and the edit's share; size: px of the transfer's."""
    return {
        "plain": dict.fromkeys(DISTANCES, plain) | {edit: seen[0]},
        "transfer": dict.fromkeys(DISTANCES, transfer) | {"size": size, edit: seen[1]},
    }


GOOD = scores(10, 2, (1, 1))
NOTHING = scores(10, 10, (1, 1))


@pytest.mark.parametrize(
    ("rows", "state"), [([NEAR] * 3, AGREES), ([NEAR, NEAR, FAR], PARTLY), ([NEAR, FAR], DIFFERS), ([FAR], DIFFERS)]
)
def test_local(rows, state):
    assert verdicts.local(dict(enumerate(rows)), UNIFORM).state == state


def test_local_names_the_extremes():
    text = verdicts.local({0: NEAR, 1: FAR}, UNIFORM).text
    assert "20% of the weight (layer 1) to 50% (layer 0)" in text
    assert "in 1 of 2 layers" in text


@pytest.mark.parametrize(
    ("rows", "state"),
    [
        ([STRIPED] * 2, AGREES),
        ([STRIPED, STRIPED, FLAT], PARTLY),
        ([FLAT], DIFFERS),
        ([STRIPED | {"stripes": 30.0}], DIFFERS),  # stripes that are stronger than the diagonal
        ([STRIPED | {"squares": 0.1}], DIFFERS),
    ],
)
def test_pattern(rows, state):
    assert verdicts.pattern(dict(enumerate(rows))).state == state


@pytest.mark.parametrize(
    ("red", "dog", "state", "nearer"),
    [(0.9, 0.8, AGREES, "all"), (0.9, 0.6, PARTLY, "red"), (0.5, 0.6, PARTLY, "none"), (0.9, 0.1, DIFFERS, "red")],
)
def test_alike(red, dog, state, nearer):
    found = verdicts.alike({"red": red, "dog": dog}, other_seed=0.7, shuffled=0.2)
    assert found.state == state
    assert found.text.endswith(f"Nearer than another seed: {nearer}.")


@pytest.mark.parametrize(
    ("numbers", "state"),
    [
        (GOOD, AGREES),
        (scores(10, 2, (1, 0)), PARTLY),  # the edit is gone
        (scores(10, 7, (1, 1)), PARTLY),  # not half of the way
        (NOTHING, DIFFERS),
        (scores(10, 12, (1, 1)), DIFFERS),
    ],
)
def test_kept(numbers, state):
    assert verdicts.kept(numbers, "colour").state == state


def test_kept_goes_by_what_no_edit_changes_by_itself():
    other = {kind: values | {"y": 99.0, "size": 99.0} for kind, values in GOOD.items()}
    assert verdicts.kept(other, "colour") == verdicts.kept(GOOD, "colour")


def test_kept_tells_the_numbers():
    text = verdicts.kept(GOOD, "colour").text
    assert "takes away 80% of the distance to the source in px" in text
    assert "in 100% of clips, 100% without" in text
    assert "adds 20% to" in verdicts.kept(scores(10, 12, (1, 1)), "colour").text


@pytest.mark.parametrize(
    ("numbers", "drawn", "state"),
    [
        (scores(10, 2, (1, 0)), 1.0, AGREES),  # the edit is gone
        (scores(10, 2, (1, 1)), 0.3, AGREES),  # a smear
        (scores(10, 8, (1, 1), size=5), 1.0, AGREES),  # less is kept, and the object is squeezed
        (scores(10, 8, (1, 1)), 1.0, PARTLY),  # less is kept
        (scores(10, 1, (1, 1), size=5), 1.0, PARTLY),  # squeezed into the source's size
        (scores(10, 1, (1, 1)), 1.0, DIFFERS),
    ],
)
def test_harder(numbers, drawn, state):
    assert verdicts.harder(numbers, {"red": GOOD, "winter": GOOD}, drawn, "colour").state == state


def test_harder_tells_the_numbers():
    text = verdicts.harder(scores(10, 1, (1, 1), size=5), {"red": GOOD}, 0.97, "colour").text
    assert "no less than of the easy edits (red 80%). The object's size goes 50% of the way back" in text
    assert "Outlines at the object are 97% as strong" in text


@pytest.mark.parametrize(
    ("seen", "drawn", "state"),
    [((1, 0.2), 1.0, AGREES), ((1, 1), 0.3, PARTLY), ((1, 1), 0.9, DIFFERS), ((0.2, 0), 1.0, OPEN)],
)
def test_ignored(seen, drawn, state):
    assert verdicts.ignored(scores(10, 2, seen), drawn, "colour").state == state


def test_a_smear_is_called_one():
    assert "30% as strong as without the transfer (a smear)" in verdicts.ignored(GOOD, 0.3, "colour").text
    assert "smear" not in verdicts.ignored(GOOD, 0.8, "colour").text


def test_outlines_of_a_smear_are_weak(probe):
    """A clip's own blurred copy, where the probe sees the object."""
    world = torch.zeros(1, 3, FRAMES, SIZE, SIZE) + 0.5
    world[..., 50:80, 40:90] = torch.rand(30, 50, generator=torch.Generator().manual_seed(0))
    blurred = world.flatten(0, 1).transpose(0, 1)
    blurred = torch.nn.functional.avg_pool2d(blurred, 9, 1, 4).transpose(0, 1).unflatten(0, (1, 3))
    pair = next(iter(PAIRS.values()))
    result = PairResult(pair, (1,), world, world, blurred, {}, TransferReport(0, 0))
    assert paper.drawn(probe, replace(result, transfer=world)) == 1
    assert paper.drawn(probe, result) < 0.6


@pytest.mark.parametrize(
    ("shares", "state"),
    [
        ([0.0, 0.1, 0.8, 0.2], AGREES),
        ([0.0, 0.1, 0.4, 0.2], PARTLY),  # ahead, but not half of the way
        ([0.6, 0.7, 0.8, 0.7], DIFFERS),  # all carry it
        ([0.01, 0.02, 0.0], DIFFERS),  # none does
        ([-0.6, -0.5, 0.0], PARTLY),  # two lead away
    ],
)
def test_layers(shares, state):
    assert verdicts.layers(shares).state == state


def test_layers_names_the_layers():
    text = verdicts.layers([0.0, 0.12, 0.8, 0.2]).text
    assert text.startswith("Layer 2 alone goes 0.80 of the way to the source, then layer 3 with 0.20")
    assert "median layer goes 0.16, so layer 2 is 0.64 ahead" in text
    assert "Least: 0 (0.00), 1 (0.12); near the plain target (less than 0.1) stay layers 0." in text


def test_places_part_the_map():
    grid = TokenGrid(3, 2, 2)
    masks = paper.places(grid)
    assert sum(mask.int() for mask in masks.values()).eq(1).all()
    counts = {name: int(mask.sum()) for name, mask in masks.items()}
    assert counts == {"diagonal": 12, "stripes": 12 * 2, "squares": 12 * 3, "elsewhere": 12 * 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("paper") / "out"
    with pytest.MonkeyPatch.context() as patch:  # without the VAE, which would take most of the time
        patch.setattr(DemoModel, "decode", lambda self, latents: quick(latents))
        assert main(["paper", "--steps", "2", "--out", str(out)]) == 0
    return out


def quick(latents: torch.Tensor) -> torch.Tensor:
    """Clips of the VAE's shape."""
    size = (FRAMES, SIZE, SIZE)
    return torch.nn.functional.interpolate(latents[:, :3].float(), size=size).sigmoid()


def test_the_page_is_whole_and_stands_alone(folder):
    page = (folder / "index.html").read_text(encoding="utf-8")
    named = set(re.findall(r'(?:src|href|poster)="([^"]+)"', page))
    outside = {address for address in named if ":" in address}
    assert outside == {"https://arxiv.org/abs/2504.10317"}
    assert all(re.fullmatch(r"[\w-]+\.(png|mp4|json)", name) for name in named - outside)
    assert all((folder / name).stat().st_size > 0 for name in named - outside)
    assert {path.name for path in folder.iterdir()} == named - outside | {"index.html", "figure.png"}
    written = page + (folder / "paper.json").read_text(encoding="utf-8")
    assert not re.search(r"://(?!arxiv\.org/)|/tmp/|/home/|/root/|url\(", written)
    assert str(folder) not in written


def test_the_page_tells_every_verdict(folder):
    found = json.loads((folder / "paper.json").read_text(encoding="utf-8"))
    assert list(found["verdicts"]) == ["local", "pattern", "alike", *PAIRS, "layers"]
    assert sum(found["tally"].values()) == len(found["verdicts"])
    page = (folder / "index.html").read_text(encoding="utf-8").replace("&#39;", "'")
    assert all(verdict["text"] in page for verdict in found["verdicts"].values())
    assert len(found["layers"]["means"]) == 9
    assert set(found["likeness"]) == {*PAIRS, "other seed"}
    assert found["likeness"]["red"]["means"]["measured"]["cosine"] > 0


def test_the_figure_fits_a_readme(folder):
    assert (folder / "figure.png").stat().st_size <= 700_000
    with Image.open(folder / "figure.png") as figure:
        assert figure.width > figure.height

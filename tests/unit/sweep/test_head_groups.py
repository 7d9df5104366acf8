"""Sweeps of head groups: what their rows are, and their videos on disk, which any other groups can use again."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vdit_core.call import ModelSignature
from vdit_core.head_mask import HeadMask
from vdit_core.selection import LayerMask, SelectionError
from vdit_core.sweep import pictures
from vdit_core.sweep.checkpoint import FolderError, SweepFolder, _digest
from vdit_core.sweep.groups import HEAD_MODES, HeadGroup, groups, of_text, union
from vdit_core.sweep.plan import Sweep
from vdit_core.sweep.run import run
from vdit_core.sweep.scores import measure

MODEL = ModelSignature(layers=3, heads=2, head_dim=8)


class Sampler:
    """Latents that say which heads take the source's maps."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def __call__(self, prompts, transfer):
        self.batches.append([mask.text for mask in transfer.masks])
        strengths = [{}, *(m.resolve(3, 2) if isinstance(m, HeadMask) else {} for m in transfer.masks)]
        return torch.tensor([[len(p), *(x for i in range(3) for x in s.get(i, (0.0, 0.0)))]
                             for p, s in zip(prompts, strengths, strict=True)])  # fmt: skip


def sweep(text: str = "0@1\n2, 1@0:0.5", mode: str = "groups", **changes) -> Sweep:
    found = groups(mode, MODEL, text=text) if mode == "groups" else groups(mode, MODEL, HeadMask(text))
    return Sweep(**({"source": "a", "target": "b c", "layers": 3, "mode": mode, "groups": found} | changes))


def labels(found: tuple[HeadGroup, ...]) -> dict[str, str]:
    return {group.label: group.mask.text for group in found}


def test_each_head_is_a_row():
    assert labels(groups("each head", MODEL, HeadMask("0, 2@1:0.5"))) == {
        "0@0": "0@0",
        "0@1": "0@1",
        "2@1:0.5": "2@1:0.5",
    }
    assert len(groups("each head", MODEL)) == 6, "without a mask, every head"
    assert list(labels(groups("each head", MODEL, LayerMask("1")))) == ["1@0", "1@1"]


def test_the_heads_of_each_layer_are_a_row():
    found = groups("heads of each layer", MODEL, HeadMask("0@1, 2"))
    assert labels(found) == {"layer 0 @ 1": "0@1", "layer 2": "2@0, 2@1"}


def test_text_has_a_row_a_line():
    assert labels(of_text("0@1, 0@0\n\n  1@0:0.5  \n", MODEL)) == {"0@1, 0@0": "0@0, 0@1", "1@0:0.5": "1@0:0.5"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\n3@0", r"head group '3@0' cannot be used: Layer 3 in '3' is out of range"),
        ("0@2", r"head group '0@2' cannot be used: Head 2 in '2' is out of range"),
        ("0@x", "Cannot read 'x'"),
        ("0\nnone", "'none' has no head above strength 0"),
        ("0\n0@0, 0@1", "'0' and '0@0, 0@1' are the same heads"),
        ("\n \n", "write one a line"),
    ],
)
def test_lines_that_are_no_groups_are_named(text, message):
    with pytest.raises(SelectionError, match=message):
        groups("groups", MODEL, text=text)


@pytest.mark.parametrize("mode", ["each head", "heads of each layer"])
def test_a_mask_without_heads_has_no_groups(mode):
    with pytest.raises(SelectionError, match="the mask 'none' names no head"):
        groups(mode, MODEL, HeadMask("none"))


def test_a_union_has_the_greatest_strength_of_each_head():
    masks = [group.mask for group in of_text("0@0:0.5, 1@1\n0@0:0.25, 2", MODEL)]
    assert union(masks) == HeadMask("0@0:0.5, 1@1, 2@0, 2@1", 3, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": ()}, "no head group"),
        ({"layers": 4}, "made for a model of 3 layers, not 4"),
        ({"mode": "each"}, "'each' is of layers and has 2 head groups"),
        ({"groups": of_text("0@1", MODEL) * 2}, "are the same heads"),
        ({"mode": "every"}, "the modes are each, first, last, all but one, each head, heads of each layer, groups"),
    ],
)
def test_sweeps_that_cannot_be_are_refused(changes, message):
    fields = {"source": "a", "target": "b", "layers": 3, "mode": "groups", "groups": sweep().groups}
    with pytest.raises(ValueError, match=message):
        Sweep(**(fields | changes))


def test_every_video_is_sampled_under_its_mask():
    latents = run(sweep(), Sampler(), rows_per_batch=2)
    assert latents.tolist() == [[1, *[0] * 6], [3, *[0] * 6], [3, 0, 1, 0, 0, 0, 0], [3, 0, 0, 0.5, 0, 1, 1]]


def test_other_groups_reuse_what_was_sampled(tmp_path):
    """The folder is a cache by mask: modes, labels and the order of groups do not matter."""
    first = sweep("0@1\n1@0")
    run(first, Sampler(), SweepFolder(tmp_path, first))
    other, sampler = sweep("1@0, 1@1", "each head"), Sampler()
    folder = SweepFolder(tmp_path, other)
    latents = run(other, sampler, folder, done=folder.load())
    assert sampler.batches == [["1@1"]]
    assert torch.equal(latents, run(other, Sampler()))


def test_a_folder_of_layers_is_not_one_of_heads(tmp_path):
    layers = Sweep("a", "b c", 3)
    run(layers, lambda prompts, transfer: torch.zeros(len(prompts), 2), SweepFolder(tmp_path, layers))
    with pytest.raises(FolderError, match="mode is 'each' there, 'head groups' here"):
        SweepFolder(tmp_path, sweep())


def rewritten(path, tensor=None, **metadata) -> None:
    """A file of a sweep with other contents, as somebody who knows the format writes it."""
    with safe_open(path, framework="pt") as file:
        was = file.metadata()
    tensor = load_file(path)["latents"] if tensor is None else tensor
    save_file({"latents": tensor}, path, metadata=was | metadata)


def test_files_that_are_not_what_their_names_say_are_sampled_again(tmp_path):
    plan = sweep("0@0\n0@1\n1@0\n1@1")
    whole = run(plan, Sampler(), SweepFolder(tmp_path, plan))
    folder = SweepFolder(tmp_path, plan)
    files = [folder.file(n) for n in range(2, 6)]
    files[0].write_bytes(files[1].read_bytes())
    rewritten(files[1], torch.full((7,), 9.0))
    rewritten(files[2], torch.tensor(1.0))
    forged = torch.zeros(3)
    rewritten(files[3], forged, digest=_digest(forged))
    said: list[str] = []
    assert sorted(folder.load(said.append)) == [0, 1]
    for what, path, line in zip(
        ("another mask", "not those", "not those", "not the source's"), files, said, strict=True
    ):
        assert f"{path} is damaged" in line
        assert what in line
    sampler = Sampler()
    assert torch.equal(run(plan, sampler, folder, done=folder.load()), whole)
    assert sampler.batches == [["0@0", "0@1", "1@0", "1@1"]]


def test_a_plan_with_changed_settings_is_refused(tmp_path):
    run(sweep(), Sampler(), SweepFolder(tmp_path, sweep()))
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["settings"]["source"] = "another"
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(FolderError, match="not a whole plan"):
        SweepFolder(tmp_path, sweep())


def test_finished_videos_of_another_shape_are_refused():
    done = {0: torch.zeros(9)}
    with pytest.raises(ValueError, match=r"latents are \(9,\), the sampler gives \(7,\)"):
        run(sweep(), Sampler(), done=done)


def clips() -> torch.Tensor:
    source, plain = torch.rand(2, 3, 4, 24, 32, generator=torch.Generator().manual_seed(0))
    return torch.stack([source, plain, plain.lerp(source, 0.1), plain.lerp(source, 0.8)])


def test_heads_that_stand_out_are_a_head_mask():
    result = measure(sweep(), clips())
    assert result.suggested == HeadMask("1@0:0.5, 2@0, 2@1", 3, 2)
    assert result.verdict() == "Structure heads (*): 2, 1@0:0.5."
    report = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert report["suggested"] == {"mask": "1@0:0.5, 2@0, 2@1", "layers": 3, "heads": 2}
    assert [row["mask"] for row in report["rows"]] == ["0@1", "1@0:0.5, 2@0, 2@1"]
    assert result.as_text().splitlines()[4].startswith("| 2, 1@0:0.5 * |")
    none = measure(sweep(), clips()[[0, 1, 1, 1]])
    assert none.suggested == HeadMask("none", 3, 2)
    assert none.verdict() == "No head group stands out: the best, 0@1, gains 0.00 of the way to the source."


@pytest.mark.parametrize("mode", HEAD_MODES)
def test_pictures_show_every_row(mode):
    plan = sweep("0@1\n2" if mode == "groups" else "0@1, 2@0", mode)
    result = measure(plan, clips())
    assert {(217, 113, 60), (169, 188, 205)} <= {colour for _, colour in pictures.bars(result).getcolors(1 << 20)}
    assert pictures.sheet(result, clips(), columns=2).height >= 4 * (24 + 34)


def test_a_chart_of_hundreds_of_heads_stays_a_picture():
    model = ModelSignature(30, 12, 8)
    plan = Sweep("a", "b", 30, "each head", groups=groups("each head", model))
    found = measure(plan, clips()[[0, 1] + [2] * 360])
    assert pictures.bars(found).width <= 4000

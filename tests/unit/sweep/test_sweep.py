"""The layer sweep without a model: plan, resume, scores and pictures, through a sampler that is a table."""

from __future__ import annotations

import hashlib
import json
import math

import pytest
import torch
from safetensors.torch import save_file

from vdit_core import metrics
from vdit_core.selection import Indices, LayerMask
from vdit_core.sweep import pictures
from vdit_core.sweep.checkpoint import FolderError, SweepFolder
from vdit_core.sweep.plan import MODES, Sweep, batches, rows
from vdit_core.sweep.run import run
from vdit_core.sweep.scores import layer_gains, measure, share, suggest
from vdit_core.transfer import TransferConfig

LAYERS = 4


class Sampler:
    """Latents that say which prompt and mask they are of; stops where it is told, as Ctrl+C does."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.batches: list[list[str]] = []
        self.stop_at = stop_at

    def __call__(self, prompts, transfer):
        if len(self.batches) == self.stop_at:
            raise KeyboardInterrupt
        self.batches.append([str(mask) for mask in transfer.masks])
        layers = transfer.masks[0].made_for
        strengths = [{}, *(mask.resolve(layers) for mask in transfer.masks)]
        numbers = [[len(p), *(s.get(i, 0.0) for i in range(layers))] for p, s in zip(prompts, strengths, strict=True)]
        return torch.tensor(numbers)


def sweep(**changes) -> Sweep:
    return Sweep(**({"source": "a car", "target": "a red car", "layers": LAYERS, "host": {"seed": 1}} | changes))


def files(path) -> list[str]:
    return sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    ("mode", "taken"),
    [
        ("each", [[0], [1], [2]]),
        ("first", [[0], [0, 1], [0, 1, 2]]),
        ("last", [[0, 1, 2], [1, 2], [2]]),
        ("all but one", [[1, 2], [0, 2], [0, 1]]),
    ],
)
def test_rows_take_the_layers_of_their_mode(mode, taken):
    assert [list(mask.resolve(3)) for _, mask in rows(mode, 3)] == taken
    assert all(mask.made_for == 3 for _, mask in rows(mode, 3))
    assert len({label for label, _ in rows(mode, 3)}) == 3


def test_labels_say_which_layers():
    assert [label for label, _ in rows("first", 3)] == ["layer 0", "layers 0-1", "layers 0-2"]
    assert rows("all but one", 3)[1][0] == "all but layer 1"


@pytest.mark.parametrize("mode", MODES)
def test_a_model_of_one_layer_can_be_swept(mode):
    assert len(Sweep("a", "b", 1, mode).videos()) == 3


def test_sweeps_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="no sweep 'every'; the modes are each, first, last, all but one"):
        sweep(mode="every")
    with pytest.raises(ValueError, match="0 layers"):
        sweep(layers=0)


def test_batches_begin_with_the_source_and_hold_each_target_once():
    assert batches(range(6)) == [(0, 1, 2, 3, 4, 5)]
    assert batches(range(6), 3) == [(0, 1, 2), (0, 3, 4), (0, 5)]
    assert batches(range(6), 100) == [(0, 1, 2, 3, 4, 5)]
    assert batches(range(7), 5) == [(0, 1, 2, 3), (0, 4, 5, 6)], "no smaller last batch than need be"
    assert batches([4, 5]) == [(0, 4, 5)]
    assert batches([0]) == [(0,)]
    assert batches([]) == []
    with pytest.raises(ValueError, match="batch of 1 holds no target"):
        batches(range(6), 1)


@pytest.mark.parametrize("rows_per_batch", [8, 2, 3])
def test_every_video_is_sampled_under_its_own_mask(rows_per_batch):
    latents = run(sweep(), Sampler(), rows_per_batch=rows_per_batch)
    assert latents[:, 0].tolist() == [5] + [9] * 5
    assert latents[:2, 1:].abs().sum() == 0
    assert torch.equal(latents[2:, 1:], torch.eye(LAYERS))


def test_by_default_a_batch_holds_at_most_eight_and_every_one_costs_a_source():
    sampler = Sampler()
    run(sweep(layers=30), sampler)
    sizes = [1 + len(batch) for batch in sampler.batches]
    assert max(sizes) == 8
    assert sum(sizes) == 30 + 2 + (len(sizes) - 1)
    assert len(sizes) == 5


def test_an_interrupted_sweep_goes_on_with_what_is_missing(tmp_path):
    whole = run(sweep(), Sampler())
    stopped = Sampler(stop_at=1)
    with pytest.raises(KeyboardInterrupt):
        run(sweep(), stopped, SweepFolder(tmp_path, sweep()), rows_per_batch=3)
    kept = [f"latents/{name}.safetensors" for name in ("plain", "row-00", "source")]
    assert files(tmp_path) == [*kept, "plan.json"]
    again = Sampler()
    folder = SweepFolder(tmp_path, sweep())
    latents = run(sweep(), again, folder, 4, folder.load())
    assert again.batches == [["1", "2", "3"]]
    assert torch.equal(latents, whole)
    idle = Sampler(stop_at=0)
    assert torch.equal(run(sweep(), idle, folder, done=folder.load()), whole)


def test_an_interrupt_while_writing_leaves_only_whole_files(tmp_path, monkeypatch):
    from vdit_core.sweep import checkpoint as folder

    written = []

    def interrupted(tensors, path, metadata):
        if written:
            path.write_bytes(b"half")
            raise KeyboardInterrupt
        written.append(path)
        save_file(tensors, path, metadata=metadata)

    save_file = folder.save_file
    monkeypatch.setattr(folder, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(sweep(), Sampler(), SweepFolder(tmp_path, sweep()))
    assert files(tmp_path) == ["latents/source.safetensors", "plan.json"]


@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: b"", lambda data: data[:-1] + b"\x7f"])
def test_a_damaged_file_is_named_and_sampled_again(tmp_path, damage):
    whole = run(sweep(), Sampler(), SweepFolder(tmp_path, sweep()))
    path = tmp_path / "latents" / "row-02.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    said, sampler, folder = [], Sampler(), SweepFolder(tmp_path, sweep())
    assert torch.equal(run(sweep(), sampler, folder, done=folder.load(said.append)), whole)
    assert sampler.batches == [["2"]]
    assert len(said) == 1
    assert f"{path} is damaged" in said[0]


def test_a_file_of_another_sweep_is_sampled_again(tmp_path):
    other = sweep(host={"seed": 2})
    run(sweep(), Sampler(), SweepFolder(tmp_path / "a", sweep()))
    run(other, Sampler(), SweepFolder(tmp_path / "b", other))
    name = "latents/row-01.safetensors"
    (tmp_path / "a" / name).write_bytes((tmp_path / "b" / name).read_bytes())
    said: list[str] = []
    assert len(SweepFolder(tmp_path / "a", sweep()).load(said.append)) == LAYERS + 1
    assert "of another sweep" in said[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host": {"seed": 2}}, "seed is 1 there, 2 here"),
        ({"host": {}}, "seed is 1 there, None here"),
        ({"mode": "last"}, "mode is 'each' there, 'last' here"),
        ({"target": "a blue car"}, "target is 'a red car' there, 'a blue car' here"),
        ({"where": TransferConfig(steps=Indices("0"))}, "steps of transfer is 'all' there, '0' here"),
    ],
)
def test_a_folder_of_another_sweep_is_refused_with_what_differs(tmp_path, changes, message):
    run(sweep(), Sampler(), SweepFolder(tmp_path, sweep()))
    with pytest.raises(FolderError, match=message):
        SweepFolder(tmp_path, sweep(**changes))


@pytest.mark.parametrize(
    ("mode", "fingerprint"),
    [
        ("each", "e6bf9e80cf227b17538b13b76b8127fb9055db4551db627638ab0146f00bd43e"),
        ("first", "84aae0e1ce8b7303345230f6cedb8a141fd69590854f86ae3de6a91f3de1f6b5"),
        ("last", "be4644b26cd6758c86f61df9f706bd02e7ead4ff159682c1d6e05efe2ff75007"),
        ("all but one", "728b399c711b5dd5c0814b67967972a8d51ba3084e6c38f2e33f0c69cdd31d11"),
    ],
)
def test_folders_of_before_head_groups_are_read(tmp_path, mode, fingerprint):
    """As they were written then: a file's metadata named no mask."""
    plan = sweep(mode=mode)
    settings = {
        "source": "a car", "target": "a red car", "layers": 4, "mode": mode, "steps of transfer": "all",
        "heads": "all", "branches": "all", "seed": 1,
    }  # fmt: skip
    text = json.dumps({"format": "vdit layer sweep 1", "fingerprint": fingerprint, "settings": settings}, indent=1)
    (tmp_path / "plan.json").write_text(text)
    (tmp_path / "latents").mkdir()
    latents = torch.arange(18.0).reshape(6, 3)
    for name, one in zip(("source", "plain", "row-00", "row-01", "row-02", "row-03"), latents, strict=True):
        metadata = {"fingerprint": fingerprint, "digest": hashlib.sha256(one.numpy().tobytes()).hexdigest()}
        save_file({"latents": one.clone()}, tmp_path / "latents" / f"{name}.safetensors", metadata=metadata)
    folder = SweepFolder(tmp_path, plan)
    assert torch.equal(run(plan, Sampler(stop_at=0), folder, done=folder.load()), latents)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "vdit layer sweep 1", "settings": 3, "fingerprint": ""}'])
def test_a_plan_that_cannot_be_read_is_refused(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(FolderError, match=r"plan\.json is not a whole plan"):
        SweepFolder(tmp_path, sweep())


def test_nothing_is_written_before_the_first_video(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(sweep(), Sampler(stop_at=0), SweepFolder(tmp_path / "new", sweep()))
    assert not (tmp_path / "new").exists()


def test_a_sampler_that_gives_too_few_is_refused():
    with pytest.raises(ValueError, match="gave 1 videos for 6 prompts"):
        run(sweep(), lambda prompts, transfer: torch.zeros(1, 3))


def test_share_is_the_part_of_the_way_to_the_source():
    assert share(0.4, 0.4) == 0
    assert share(1.0, 0.4) == 1
    assert share(0.7, 0.4) == pytest.approx(0.5)
    assert share(0.1, 0.4) == pytest.approx(-0.5)
    assert share(1.0, 1.0) == 0


@pytest.mark.parametrize(
    ("mode", "shares", "gains"),
    [
        ("each", [0.1, 0.4, 0.2], [0.1, 0.4, 0.2]),
        ("first", [0.1, 0.5, 0.7], [0.1, 0.4, 0.2]),
        ("last", [0.7, 0.6, 0.2], [0.1, 0.4, 0.2]),
        ("all but one", [0.6, 0.3, 0.5], [0.0, 0.3, 0.1]),
    ],
)
def test_gain_is_what_a_layer_adds(mode, shares, gains):
    assert layer_gains(mode, shares) == pytest.approx(gains)


def test_layers_with_half_of_the_greatest_gain_are_suggested():
    assert suggest([0.1, 0.4, 0.2, -0.3]) == LayerMask("1, 2", made_for=4)
    assert suggest([-0.1, 0.0, -0.2]) == LayerMask("none", made_for=3)
    assert suggest([0.01, 0.04, 0.0]) == LayerMask("none", made_for=3), "a small gain stands out from nothing"
    assert suggest([0.01, 0.04, 0.06]) == LayerMask("2", made_for=3)


def clips() -> torch.Tensor:
    """Source and plain are unrelated; row 2 is mostly the source, row 1 a little, the others are the plain target."""
    generator = torch.Generator().manual_seed(0)
    source, plain = torch.rand(2, 3, 4, 24, 32, generator=generator)
    return torch.stack([source, plain, plain, plain.lerp(source, 0.2), plain.lerp(source, 0.8), plain])


def test_scores_of_clips_whose_likeness_is_known():
    result = measure(sweep(), clips(), [{"x": float(n)} for n in range(5)])
    assert result.rows[0].share == pytest.approx(0, abs=1e-6)
    assert result.rows[2].share > 0.8
    assert result.suggested == LayerMask("2", made_for=LAYERS)
    assert result.rows[0].to_plain["psnr"] == 100
    assert result.rows[0].to_plain["flip"] == 0
    assert result.rows[2].to_source["flip"] < result.rows[1].to_source["flip"] < result.plain["flip"]
    assert result.verdict() == "Structure layers (*): 2."
    assert result.rows[2].to_source["psnr"] > result.rows[1].to_source["psnr"] > result.plain["psnr"]
    assert result.rows[2].to_source["motion"] > result.rows[2].to_plain["motion"]
    assert (result.plain_more["x"], result.rows[3].more["x"]) == (0, 4)
    report = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert report["suggested"] == {"mask": "2", "layers": LAYERS}
    assert [row["mask"] for row in report["rows"]] == ["0", "1", "2", "3"]
    table = result.as_text().splitlines()
    assert len(table) == 2 + 1 + LAYERS
    assert table[5].startswith("| layer 2 * |")


def test_the_source_as_target_suggests_nothing():
    same = clips()[:1].expand(6, -1, -1, -1, -1)
    result = measure(sweep(), same)
    assert result.suggested == LayerMask("none", made_for=LAYERS)
    assert result.verdict() == "No layer stands out: the best, layer 0, gains 0.00 of the way to the source."


def test_without_its_package_flip_is_left_open(monkeypatch):
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    result = measure(sweep(), clips())
    assert math.isnan(result.plain["flip"])
    report = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert report["rows"][0]["to_source"]["flip"] is None
    assert result.as_text()


def test_another_number_of_clips_is_refused():
    with pytest.raises(ValueError, match="5 clips for a sweep of 6 videos"):
        measure(sweep(), clips()[:5])


@pytest.mark.parametrize("mode", MODES)
def test_pictures_show_every_row(mode):
    result = measure(sweep(mode=mode), clips())
    drawn = pictures.bars(result)
    assert drawn.width >= 700
    assert {(217, 113, 60), (169, 188, 205)} <= {colour for _, colour in drawn.getcolors(1 << 20)}
    sheet = pictures.sheet(result, clips(), columns=2, names=("source", "plain target"))
    assert sheet.height >= 6 * (24 + 34)

"""The search by goal, on a sampler whose best set of heads is known."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from vdit_core.call import ModelSignature
from vdit_core.head_mask import HeadMask
from vdit_core.sweep.checkpoint import FolderError, SweepFolder
from vdit_core.sweep.goal import Goal, GoalError, Measure, Measures, SearchConfig
from vdit_core.sweep.groups import groups
from vdit_core.sweep.plan import Sweep
from vdit_core.sweep.run import run
from vdit_core.sweep.search import layer_groups, search
from vdit_core.sweep.search_pictures import chart, sheet

MODEL = ModelSignature(layers=4, heads=3, head_dim=8)
#: What each head brings of the source's pan, and takes of the plain target's object. The others do nothing.
PAN = {(1, 0): 0.4, (2, 1): 0.3, (3, 2): 0.2, (0, 0): 0.3}
OBJECT = {(0, 0): 0.9, (3, 2): 0.05, (0, 2): 0.2}
BEST = HeadMask("1@0, 2@1, 3@2", 4, 3)


class Sampler:
    """Latents (pan, object): the source is (1, 0), the plain target (0, 1). Stops where it is told, as Ctrl+C does."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.masks: list[str] = []
        self.batches = 0
        self.stop_at = stop_at

    def __call__(self, prompts, transfer) -> Tensor:
        if self.batches == self.stop_at:
            raise KeyboardInterrupt
        self.batches += 1
        self.masks += [mask.text for mask in transfer.masks]
        rows = [(1.0, 0.0)]
        for mask in transfer.masks:
            taken = mask.resolve(4, 3) if isinstance(mask, HeadMask) else {}
            pan, thing = (
                sum(part * taken[layer][head] for (layer, head), part in table.items() if layer in taken)
                for table in (PAN, OBJECT)
            )
            rows.append((pan, 1.0 - thing))
        return torch.tensor(rows)


MEASURES = Measures(
    {
        "pan": Measure(lambda a, b: 1 - abs(a - b)[0].item()),
        "object": Measure(lambda a, b: 1 - abs(a - b)[1].item()),
    },
    look=lambda clip: clip[0, :2, 0, 0, 0],
)
GOAL = Goal(("pan",), ("object",))


def decode(latents: Tensor) -> Tensor:
    """A clip with the latents' numbers in its first two channels."""
    assert len(latents) == 1
    return torch.cat([latents, torch.zeros(1, 1)], 1)[..., None, None, None].expand(-1, -1, 2, 16, 16)


def sweep(text: str | None = None, **changes) -> Sweep:
    found = groups("each head", MODEL) if text is None else groups("groups", MODEL, text=text)
    mode = "each head" if text is None else "groups"
    return Sweep(**({"source": "a", "target": "b", "layers": 4, "mode": mode, "groups": found} | changes))


def searched(sampler, plan=None, folder=None, goal=GOAL, **changes):
    def run_sweep(sweep, folder, done):
        return run(sweep, sampler, folder, done=done)

    config = SearchConfig(goal, **changes)
    return search(plan or sweep(), config, run_sweep, decode, MEASURES, folder)


def test_greedy_finds_the_best_set():
    found = searched(Sampler())
    assert found.mask == BEST
    assert [step.trial.label for step in found.path] == ["1@0", "2@1", "3@2"]
    assert [step.gain for step in found.path] == pytest.approx([0.2, 0.15, 0.075])
    assert (found.has.kept, found.has.free, found.has.trade) == pytest.approx((0.9, 0.95, 0.925))
    assert found.stopped == "no group improves the trade by 0.01"
    assert [trial.round for trial in found.trials] == [1] * 12 + [2] * 11 + [3] * 10 + [4] * 9


def test_the_weight_decides_what_a_group_may_cost():
    """Head 0@0 brings 0.3 of the pan for 0.9 of the object."""
    greedy = searched(Sampler(), goal=Goal(("pan",), ("object",), 0.9))
    assert HeadMask("0@0, 1@0, 2@1", 4, 3) == greedy.mask, "then 3@2 would go beyond the source"
    careful = searched(Sampler(), goal=Goal(("pan",), ("object",), 0.1))
    assert careful.mask == HeadMask("1@0, 2@1", 4, 3), "3@2 gains 0.1 x 0.2 - 0.9 x 0.05"


def test_groups_are_taken_as_wholes():
    found = searched(Sampler(), sweep("1@0, 0@0\n2@1, 3@2\n3@0"))
    assert found.mask == HeadMask("2@1, 3@2", 4, 3)
    assert found.path[0].trial.label == "2@1, 3@2"


def test_layers_are_groups_too():
    plan = layer_groups(Sweep("a", "b", 4), heads=3)
    found = searched(Sampler(), plan)
    assert [step.trial.label for step in found.path] == ["layer 1", "layer 2", "layer 3"]
    assert found.mask.resolve(4, 3) == dict.fromkeys((1, 2, 3), (1.0, 1.0, 1.0))
    assert layer_groups(plan, 3) is plan
    with pytest.raises(GoalError, match="rows of the mode 'first' overlap"):
        layer_groups(Sweep("a", "b", 4, "first"), 3)


def test_groups_that_overlap_are_tried_once_and_reach_the_same():
    found = searched(Sampler(), sweep("1@0\n1@0, 2@1\n2@1\n3@2"))
    assert found.mask == BEST
    assert [step.trial.label for step in found.path] == ["1@0, 2@1", "3@2"]
    assert len({trial.mask.text for trial in found.trials}) == len(found.trials)


@pytest.mark.parametrize(
    ("changes", "path", "stopped"),
    [
        ({"most_groups": 1}, ["1@0"], "the limit of 1 groups is reached"),
        ({"least_gain": 0.1}, ["1@0", "2@1"], "no group improves the trade by 0.1"),
        ({"least_gain": 0.0}, ["1@0", "2@1", "3@2"], "no group improves the trade by 0"),
    ],
)
def test_it_stops_where_it_is_told(changes, path, stopped):
    found = searched(Sampler(), **changes)
    assert [step.trial.label for step in found.path] == path
    assert found.stopped == stopped


def test_it_stops_when_every_group_is_in():
    found = searched(Sampler(), sweep("1@0\n2@1"))
    assert (found.mask, found.stopped) == (HeadMask("1@0, 2@1", 4, 3), "every group is in")


def test_nothing_is_found_where_nothing_helps():
    found = searched(Sampler(), sweep("0@0\n0@2"))
    assert (found.mask, found.path, found.has) == (HeadMask("none", 4, 3), (), found.plain)
    assert found.verdict().startswith(
        "No head group brings the target nearer to “keep pan, free object” (2 masks tried;"
    )


def test_later_rounds_try_the_groups_that_added_most():
    sampler = Sampler()
    found = searched(sampler, candidates=2)
    assert found.mask == BEST
    assert [trial.label for trial in found.trials if trial.round == 2] == ["2@1", "3@2"]


def test_a_batch_has_at_most_eight_and_the_first_round_no_more_batches_than_a_sweep():
    sampler, plan = Sampler(), sweep()
    searched(sampler, plan, most_groups=1)
    assert len(sampler.masks) == 1 + 12
    assert sampler.batches == 2, "the plain target and six groups, then the other six"


def test_a_second_search_samples_nothing_whatever_its_goal(tmp_path):
    first = searched(Sampler(), folder=tmp_path)
    idle = Sampler(stop_at=0)
    assert searched(idle, folder=tmp_path).as_dict() == first.as_dict()
    assert searched(idle, folder=tmp_path, goal=Goal(("pan",), ("object",), 0.4)).mask == BEST


def test_a_search_uses_what_a_sweep_of_heads_sampled(tmp_path):
    plan, sampler = sweep(), Sampler()
    run(plan, Sampler(), SweepFolder(tmp_path, plan))
    searched(sampler, folder=tmp_path, most_groups=1)
    assert sampler.masks == []


@pytest.mark.parametrize("stop_at", range(1, 7))
def test_interrupted_and_resumed_gives_the_same(tmp_path, stop_at):
    stopped = Sampler(stop_at)
    with pytest.raises(KeyboardInterrupt):
        searched(stopped, folder=tmp_path)
    again = Sampler()
    found = searched(again, folder=tmp_path)
    whole = Sampler()
    assert found.as_dict() == searched(whole).as_dict()
    assert sorted(stopped.masks + again.masks) == sorted(whole.masks), "no mask is sampled twice"


def test_a_file_of_another_mask_does_not_mislead_a_search(tmp_path):
    searched(Sampler(), folder=tmp_path)
    plan = sweep()
    names = {video.mask.text: SweepFolder(tmp_path, plan).file(n) for n, video in enumerate(plan.videos())}
    names["0@1"].write_bytes(names["1@0"].read_bytes())
    again = Sampler()
    assert searched(again, folder=tmp_path).mask == BEST
    assert again.masks == ["0@1"]


def test_a_folder_of_another_source_is_refused_before_anything_is_sampled(tmp_path):
    searched(Sampler(), folder=tmp_path)
    idle = Sampler(stop_at=0)
    with pytest.raises(FolderError, match="source is 'a' there, 'c' here"):
        searched(idle, sweep(source="c"), folder=tmp_path)


def test_a_goal_that_says_nothing_is_found_out_after_one_batch():
    sampler = Sampler()
    table = MEASURES.table | {"colour": Measure(lambda a, b: 1.0)}

    def run_sweep(sweep, folder, done):
        return run(sweep, sampler, folder, done=done)

    config = SearchConfig(Goal(("colour",), ("object",)))
    with pytest.raises(GoalError, match="hardly differ in colour"):
        search(sweep(), config, run_sweep, decode, Measures(table, MEASURES.look))
    assert sampler.batches == 1


def test_what_cannot_be_searched_is_refused_before_anything_is_sampled():
    idle = Sampler(stop_at=0)
    with pytest.raises(GoalError, match="no measure 'edges' here; there are pan, object"):
        searched(idle, goal=Goal(("edges",), ("object",)))
    with pytest.raises(ValueError, match="searched among head groups; the sweep 'each' is of layers"):
        searched(idle, Sweep("a", "b", 4))


def test_a_video_that_is_no_number_is_never_taken():
    class Broken(Sampler):
        def __call__(self, prompts, transfer):
            latents = super().__call__(prompts, transfer)
            for row, mask in enumerate(transfer.masks, start=1):
                if "1@0" in mask.text:
                    latents[row] = float("nan")
            return latents

    found = searched(Broken())
    assert found.mask == HeadMask("2@1, 3@2", 4, 3)
    report = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert next(trial for trial in report["trials"] if trial["mask"] == "1@0")["trade"] is None
    assert chart(found).width == 1000


def test_the_report_has_the_path_and_everything_that_was_tried():
    found = searched(Sampler())
    report = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert report["goal"] == {"keep": ["pan"], "free": ["object"], "weight": 0.5}
    assert report["found"] == {"mask": "1@0, 2@1, 3@2", "layers": 4, "heads": 3}
    assert [step["mask"] for step in report["path"]] == ["1@0", "1@0, 2@1", "1@0, 2@1, 3@2"]
    assert len(report["trials"]) == 12 + 11 + 10 + 9
    assert next(t for t in report["trials"] if t["mask"] == "1@0, 2@1")["on_front"]
    assert not next(t for t in report["trials"] if t["mask"] == "0@2")["on_front"]
    lines = found.as_text().splitlines()
    assert lines[0].startswith(
        "Found for “keep pan, free object”: 1@0; 2@1; 3@2. Kept 0.90, free 0.95, trade 0.50 → 0.9"
    )
    assert lines[0].endswith(" (42 masks tried; no group improves the trade by 0.01).")
    assert [line.split("|")[2].strip() for line in lines[4:]] == ["plain target", "+ 1@0", "+ 2@1", "+ 3@2"]


def test_the_pictures_show_path_front_and_videos():
    found = searched(Sampler())
    drawn = chart(found)
    colours = {colour for _, colour in drawn.getcolors(1 << 20)}
    assert {(213, 94, 0), (169, 188, 205), (42, 42, 46)} <= colours, "taken, tried, front"
    assert found.clips.shape == (2 + 3, 3, 2, 16, 16)
    assert sheet(found, columns=2).height >= 5 * (16 + 34)

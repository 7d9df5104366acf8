"""Layer Sweep on a real server."""

from __future__ import annotations

import json
import re

import pytest
from comfyui import graphs
from comfyui.server import PromptFailed, Result

WINTER = graphs.SOURCE + " in the winter"


def shown(result: Result, node: str) -> str:
    """The text that a node showed."""
    (said,) = (m["data"]["output"]["text"][0] for m in result.messages if m["type"] == "executed"
               and m["data"]["node"] == node)  # fmt: skip
    return said


def table(result: Result) -> list[str]:
    """The rows of the scores that it showed."""
    return shown(result, "say").splitlines()[2:]


def said_by(result: Result, node: str) -> list[str]:
    """All that a node reported on its way."""
    return [m["data"]["text"] for m in result.messages if m["type"] == "vdit.report" and m["data"]["node"] == node]


def sweep(length: int = 5, **changes) -> graphs.Graph:
    """Of small clips and few steps: a CPU decodes eleven of each sweep."""
    graph = graphs.sweep(**{"steps": 2} | changes)
    graph["target"]["inputs"]["text"] = WINTER
    graph["empty"]["inputs"] |= {"width": 64, "height": 64, "length": length}
    return graph | {"json": graphs.node("PreviewAny", source=["sweep", 4])}


def test_every_layer_has_its_row_and_the_mask_plugs_in(server):
    graph = sweep(length=9, mode="first") | {
        "live": graphs.node(
            "VDiT_LiveTransfer", model=["demo", 0], source=["source", 0], target=["target", 0], latent=["empty", 0],
            mask=["sweep", 0], **graphs.where(),
        ),
        "sample": graphs.sampler(["live", 0], "live", positive=["live", 1], latent_image=["live", 2]),
        "save live": graphs.node("SaveLatent", samples=["sample", 0], filename_prefix="live"),
    }  # fmt: skip
    result = server.run(graph)
    rows = table(result)
    assert len(rows) == 10
    labels = ["plain", "layer 0", *(f"layers 0-{i}" for i in range(1, 9))]
    assert [re.match(r"\| (plain|layers? [\d-]+)", row)[1] for row in rows] == labels
    starred = [int(i) for i in re.findall(r"(\d) \*", "\n".join(rows))]
    assert starred
    count = len(starred) * 3 * 2  # steps, branches
    assert result.reports()["live"] == f"replaced {count} of {count} calls"
    found = json.loads(shown(result, "json"))
    assert found["suggested"] == {"mask": ", ".join(map(str, starred)), "layers": 9}
    assert [row["label"] for row in found["rows"]] == labels[1:]
    assert all(0 < row["to_source"]["flip"] < 1 for row in found["rows"])


def test_it_tells_how_far_it_is_and_how_long_it_takes(server):
    said = said_by(server.run(sweep(seed=5)), "sweep")
    assert said[0] == "batch 1 of 2, step 1 of 2"
    assert re.fullmatch(r"batch 1 of 2, step 2 of 2, \d+ s left", said[1])
    assert re.fullmatch(r"batch 2 of 2, begins, \d+ s left", said[2])
    assert said[-13] == "sampled, now decoding"
    assert said[-2] == "decoded 11 of 11 videos"
    assert re.fullmatch(r"Structure layers \(\*\): .+\.|No layer stands out: .+\.", said[-1])


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2m_sde"])
def test_samplers_that_add_noise_give_every_video_the_same(server, sampler):
    """Without a transfer every row is the plain target, so none comes nearer to the source."""
    result = server.run(sweep(sampler_name=sampler, transfer_steps="none", steps=3))
    found = json.loads(shown(result, "json"))
    assert max(abs(row["share"]) for row in found["rows"]) < 1e-3
    assert found["plain"]["to_source"]["edges"] < 0.9
    assert result.reports()["sweep"].startswith("No layer stands out")


def test_batches_give_what_one_batch_gives(server):
    one, many = (table(server.run(sweep(videos_per_batch=n))) for n in (11, 5))
    for left, right in zip(one, many, strict=True):
        numbers = [[float(x) for x in re.findall(r"-?\d+\.\d+", row)] for row in (left, right)]
        assert numbers[0] == pytest.approx(numbers[1], abs=0.02)


def test_an_interrupted_sweep_goes_on(server):
    graph = sweep(steps=8, seed=11)
    with pytest.raises(PromptFailed, match="interrupted"):
        server.run(graph, interrupt_at="sweep", interrupt_after=9)  # in the second of two batches of eight steps
    result = server.run(graph)
    assert len(table(result)) == 10
    assert said_by(result, "sweep")[0] == "batch 1 of 1, step 1 of 8"


def heads_sweep(**changes) -> graphs.Graph:
    """Of some heads; what it found is put into a live transfer."""
    return sweep(**changes) | {
        "heads": graphs.node("VDiT_HeadMask", mask="2@1, 6", layers=0, heads=0),
        "live": graphs.node(
            "VDiT_LiveTransfer", model=["demo", 0], source=["source", 0], target=["target", 0], latent=["empty", 0],
            mask=["sweep", 5], **graphs.where(),
        ),
        "sample": graphs.sampler(["live", 0], "live", positive=["live", 1], latent_image=["live", 2]),
        "save live": graphs.node("SaveLatent", samples=["sample", 0], filename_prefix="live"),
    }  # fmt: skip


def test_heads_of_a_mask_have_their_rows(server):
    result = server.run(heads_sweep(mode="heads of each layer", mask=["heads", 0], transfer_steps="0", seed=21))
    found = json.loads(shown(result, "json"))
    assert {row["label"]: row["mask"] for row in found["rows"]} == {"layer 2 @ 1": "2@1", "layer 6": "6@0, 6@1"}
    assert (found["settings"]["mode"], found["suggested"]["heads"]) == ("heads of each layer", 2)
    again = server.run(heads_sweep(mode="each head", mask=["heads", 0], transfer_steps="0", seed=21))
    assert [row["label"] for row in json.loads(shown(again, "json"))["rows"]] == ["2@1", "6@0", "6@1"]
    assert said_by(again, "sweep")[0] == "batch 1 of 1, step 1 of 2"
    assert said_by(again, "sweep")[2] == "sampled, now decoding", "2@1 is there; one batch has both heads of layer 6"


def test_a_goal_is_searched_and_its_videos_serve_the_next(server):
    groups = "2@1\n6\n\nall"
    goal = {"goal": "keep edges, free palette", "weight": 0.99, "most_groups": 1}
    graph = heads_sweep(mode="groups", head_groups=groups, steps=6, length=9, **goal)
    result = server.run(graph)
    found = json.loads(shown(result, "json"))
    assert [group["label"] for group in found["groups"]] == ["2@1", "6", "all"]
    assert len(found["trials"]) == 3
    assert found["goal"] == {"keep": ["edges"], "free": ["palette"], "weight": 0.99}
    best = max(found["trials"], key=lambda trial: trial["trade"])
    assert found["found"] == {"mask": best["mask"], "layers": 9, "heads": 2}, "all of the weight is on what they bring"
    assert result.reports()["sweep"].startswith("Found for “keep edges, free palette”: ")
    layers = len({head.partition("@")[0] for head in best["mask"].split(", ")})
    assert result.reports()["live"] == f"replaced {layers * 6} of {layers * 6} calls"
    assert said_by(result, "sweep")[0] == "round 1, 3 groups: batch 1 of 1, step 1 of 6"

    graph["sweep"]["inputs"] |= {"goal": "keep edges, free ssim", "mode": "groups", "head_groups": "6\n2@1"}
    again = server.run(graph)
    assert len(json.loads(shown(again, "json"))["trials"]) == 2
    assert len(said_by(again, "sweep")) == 1, "nothing is sampled, so only the verdict is told"


def test_an_interrupted_search_goes_on(server):
    """Its first round samples the plain target and six layers, then the other three."""
    graph = sweep(steps=8, seed=31, goal="keep edges, free palette", most_groups=1)
    with pytest.raises(PromptFailed, match="interrupted"):
        server.run(graph, interrupt_at="sweep", interrupt_after=12)
    result = server.run(graph)
    report = json.loads(shown(result, "json"))
    assert [trial["added"] for trial in report["trials"]] == [f"layer {i}" for i in range(9)]
    sampled = [said for said in said_by(result, "sweep") if said.endswith("step 1 of 8")]
    assert sampled == ["round 1, 9 groups: batch 1 of 1, step 1 of 8"], "the first batch is there"


def test_a_single_frame_is_refused_before_anything_is_sampled(server):
    with pytest.raises(PromptFailed, match="single frame, and the sweep scores motion: use a length of 5"):
        server.run(sweep(length=1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"videos_per_batch": 1}, "a batch of 1 holds no target beside the source"),
        ({"transfer_steps": "9"}, "Step 9 in '9' is out of range"),
        ({"mode": "some"}, "Value not in list"),
        ({"goal": "motion"}, "goal: Cannot read 'motion' in the goal 'motion'"),
        ({"goal": "keep pan, free palette"}, "There is no measure 'pan' here; there are motion, edges, ssim, palette"),
        ({"goal": "keep edges, free palette", "mode": "first"}, "The rows of the mode 'first' overlap"),
        ({"mode": "groups"}, 'The mode "groups" needs head groups'),
        ({"mode": "groups", "head_groups": "5@x"}, "head_groups: Cannot read 'x'"),
        ({"mode": "groups", "head_groups": "9"}, "The head group '9' cannot be used: Layer 9 in '9' is out of range"),
    ],
)
def test_mistakes_are_named(server, changes, message):
    with pytest.raises(PromptFailed, match=re.escape(message)):
        server.run(sweep(**changes))

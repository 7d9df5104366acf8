"""Attention Structure and Compare Attention on a real server."""

from __future__ import annotations

import re

import pytest
import torch
from comfyui import graphs
from comfyui.server import PromptFailed
from PIL import Image

from vdit_core.call import ModelSignature, TokenGrid
from vdit_core.recording.store import AttentionStore, Evaluation, Header, Key

STEPS = 3


def looked_at(seed: int = 7, **changes) -> graphs.Graph:
    outputs = ("map", "band", "frames", "locality", "steps")
    return (
        graphs.demo()
        | graphs.recorded("store", "source", seed, steps=STEPS)
        | {"look": graphs.structure("store", **changes), "say": graphs.node("PreviewAny", source=["look", 5])}
        | {
            name: graphs.node("SaveImage", images=["look", n], filename_prefix=f"look/{name}")
            for n, name in enumerate(outputs)
        }
        | {"needed": graphs.node("SaveImage", images=["look", 7], filename_prefix="look/needed")}
    )


def test_structure_draws_every_picture(server):
    result = server.run(looked_at(layer=4, head=1))
    assert result.reports()["look"] == f"{9 * STEPS * 2} maps, all queries each"
    for name, count in {"map": 1, "band": 1, "frames": 1, "locality": 1, "steps": STEPS, "needed": 1}.items():
        files = sorted((server.base / "output" / "look").glob(f"{name}_*.png"))
        assert len(files) == count
        with Image.open(files[0]) as picture:
            assert min(picture.size) >= 340
            assert len(picture.convert("RGB").getcolors(2**24)) > 100
    (table,) = (m["data"]["output"]["text"][0] for m in result.messages if m["data"].get("node") == "say"
                and m["type"] == "executed")  # fmt: skip
    assert len(re.findall(r"^\| \d +\|", table, re.MULTILINE)) == 9


def test_sampled_figures_say_so(server):
    said = server.run(looked_at(queries="sampled", layers="2-3")).reports()["look"]
    assert said == "12 maps, 320 of 320 queries each, sampled"


def test_a_part_of_the_map_is_chosen_by_its_tokens(server):
    server.run(looked_at(rows="0-31", columns="64-127", branch="all", layer=2))
    band = max((server.base / "output" / "look").glob("band_*.png"), key=lambda file: file.stat().st_mtime)
    with Image.open(band) as picture:
        assert picture.width > 640 > picture.height > 320


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": 9}, "There is no map of layer 9, branch 'cond'; there are layers [0, 1"),
        ({"step": 3}, "There is no map of step 3, branch 'cond'; there are steps [0, 1, 2]"),
        ({"head": 2}, "There is no map of head 2; there are heads [0, 1]"),
        ({"sample": 1}, "There is no map of sample 1; there are samples [0]"),
        ({"rows": "300-320"}, "rows 300 to 320 do not lie within the map's 320 tokens, 0 to 319"),
        ({"branch": "cond 2"}, "Branch 'cond 2' was not recorded; the store holds cond, uncond"),
        ({"layers": "nine"}, "Cannot read 'nine'"),
        ({"steps": "7"}, "Step 7 in '7' is out of range"),
    ],
)
def test_what_is_not_there_is_named(server, changes, message):
    with pytest.raises(PromptFailed, match=re.escape(message)):
        server.run(looked_at(**changes))


@pytest.mark.parametrize("node", ["look", "compare"])
def test_an_interrupt_ends_it_and_the_next_run_goes_through(server, node):
    graph = looked_at(seed={"look": 9, "compare": 10}[node]) | {  # nothing of it is cached
        "compare": graphs.compare("store", "store", other_step=0),
        "save": graphs.node("SaveImage", images=["compare", 0], filename_prefix="likeness"),
    }
    with pytest.raises(PromptFailed, match="interrupted"):
        server.run(graph, interrupt_at=node)
    assert node in server.run(graph).reports()


def test_compare_holds_prompts_against_seeds(server):
    graph = (
        graphs.demo()
        | graphs.recorded("first", "source")
        | graphs.recorded("second", "target")
        | graphs.recorded("baseline", "source", seed=8)
        | {
            "compare": graphs.compare("first", "second", baseline=["baseline", 0]),
            "save": graphs.node("SaveImage", images=["compare", 0], filename_prefix="likeness"),
        }
    )
    said = server.run(graph).reports()["compare"]
    found = re.fullmatch(r"cosine similarity (\d\.\d+), 54 pairs of maps", said)
    assert found, said
    assert float(found[1]) > 0.95


def test_recordings_of_two_sizes_are_refused(server):
    graph = graphs.demo() | graphs.recorded("first", "source") | graphs.recorded("second", "source")
    graph["wide"] = graphs.node("EmptyHunyuanLatentVideo", width=160, height=128, length=17, batch_size=1)
    graph["sample second"]["inputs"]["latent_image"] = ["wide", 0]
    graph["compare"] = graphs.compare("first", "second")
    graph["save"] = graphs.node("SaveImage", images=["compare", 0], filename_prefix="likeness")
    with pytest.raises(PromptFailed, match="differ in grid: 5 x 8 x 8 = 320 tokens and 5 x 8 x 10 = 400 tokens"):
        server.run(graph)


def test_a_recording_of_another_model_is_compared(server):
    model = ModelSignature(4, 2, 16, (("double", 2), ("single", 2)))
    header = Header(model, TokenGrid(4, 6, 5), (1.0, 0.5), (0, 1), 1, "none", "float32", "hunyuan video 16 -> 16")
    store, generator = AttentionStore(header), torch.Generator().manual_seed(0)
    for layer in range(4):
        store.put(Key(Evaluation(1.0), "cond", layer), *torch.randn(2, 1, 2, 120, 16, generator=generator))
    folder = server.base / "input" / "attention"
    folder.mkdir(parents=True, exist_ok=True)
    store.save(folder / "other.safetensors")
    graph = (
        graphs.demo()
        | graphs.recorded("first", "source")
        | {
            "second": graphs.node("VDiT_LoadAttentionStore", file="attention/other.safetensors [input]"),
            "compare": graphs.compare("first", "second", branches="cond"),
            "save": graphs.node("SaveImage", images=["compare", 0], filename_prefix="across"),
            "say": graphs.node("PreviewAny", source=["compare", 1]),
        }
    )
    result = server.run(graph)
    assert result.reports()["compare"].startswith("two models, alike in time")
    said = [m["data"]["output"] for m in result.messages if m["type"] == "executed" and m["data"]["node"] == "say"]
    assert "4 layers (2 double, 2 single) x 2 heads x 16, on 4 x 6 x 5" in said[0]["text"][0]

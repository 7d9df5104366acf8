"""Examples made of ComfyUI's own templates are these templates: only the pack's nodes are put in."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from typing import Any

import pytest
from comfyui.installation import PACK, ComfyUI

sys.path.insert(0, str(PACK / "tools"))
from official_template import folder
from template_workflows import TEMPLATES

#: Put in to show two videos instead of one.
TWO_VIDEOS = {"LatentFromBatch": 2, "VAEDecode": 1, "CLIPTextEncode": 1, "WanImageToVideo": 1}
WORDS = ("CLIPTextEncode", "LoadImage")  # another prompt, a picture that every ComfyUI has


@pytest.fixture(params=TEMPLATES)
def pair(comfyui: ComfyUI, request: pytest.FixtureRequest) -> tuple[dict[str, Any], dict[str, Any]]:
    """A template, and the example made of it."""
    try:
        file = folder(comfyui.folder) / f"{TEMPLATES[request.param][1]}.json"
    except FileNotFoundError as error:
        pytest.skip(str(error))
    return json.loads(file.read_text(encoding="utf-8")), example(request.param)


def example(number: int) -> dict[str, Any]:
    (file,) = (PACK / "example_workflows").glob(f"{number} *.json")
    return json.loads(file.read_text(encoding="utf-8"))


def graph(workflow: dict[str, Any]) -> dict[str, Any]:
    """Where the sampler is: the graph itself, or its subgraph."""
    return next(iter(workflow.get("definitions", {}).get("subgraphs", [])), workflow)


def nodes(workflow: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {node["id"]: node for node in graph(workflow)["nodes"] if node["type"] != "MarkdownNote"}


def links(workflow: dict[str, Any]) -> set[tuple[Any, ...]]:
    """Origin, its output, target, the name of its input."""
    by_id, found = nodes(workflow), set()
    for link in graph(workflow)["links"]:
        names = ("origin_id", "origin_slot", "target_id", "target_slot")
        origin, output, target, slot = [link[k] for k in names] if isinstance(link, dict) else link[1:5]
        found.add((origin, output, target, by_id[target]["inputs"][slot]["name"] if target in by_id else slot))
    return found


def test_every_node_of_the_template_is_there_with_its_values(pair):
    theirs, ours = pair
    for id_, node in nodes(theirs).items():
        same = nodes(ours)[id_]
        assert same["type"] == node["type"]
        if node["type"] not in WORDS:
            assert same.get("widgets_values") == node.get("widgets_values"), node["type"]
            assert same.get("mode") == node.get("mode")


def test_nothing_is_put_in_but_the_packs_nodes_and_a_second_video(pair):
    theirs, ours = pair
    new = [node["type"] for id_, node in nodes(ours).items() if id_ not in nodes(theirs)]
    beside = Counter(kind for kind in new if not kind.startswith("VDiT_"))
    assert beside <= Counter(TWO_VIDEOS)
    assert len(new) > sum(beside.values())


def test_links_of_the_template_stay_or_lead_through_the_new_nodes(pair):
    theirs, ours = pair
    new = set(nodes(ours)) - set(nodes(theirs))
    shift = len(graph(ours).get("inputs", ())) - len(graph(theirs).get("inputs", ()))
    kept = links(ours)
    for origin, output, target, name in links(theirs):
        outputs = {output, output + shift} if origin < 0 else {output}
        if any((origin, one, target, name) in kept for one in outputs):
            continue
        # What the target gets instead comes from a new node, which the origin reaches through new nodes alone.
        (before,) = {start for start, _, goal, slot in kept if (goal, slot) == (target, name)}
        assert before in new, (origin, target, name)
        passed = new | {id_ for id_, node in nodes(ours).items() if node["type"] == "VAEDecode"}
        reached, todo = set(), {before}
        while todo:
            one = todo.pop()
            starts = {start for start, _, goal, _ in kept if goal == one}
            todo |= (starts & passed) - reached
            reached |= starts
        assert origin in reached, (origin, target, name)


@pytest.mark.parametrize("number", TEMPLATES)
def test_the_files_are_those_that_the_note_links(number):
    workflow = example(number)
    (note,) = (node["widgets_values"][0] for node in workflow["nodes"] if node["type"] == "MarkdownNote")
    every = {value for node in (*graph(workflow)["nodes"], *workflow["nodes"])
             if node["type"] != "MarkdownNote" for value in node.get("widgets_values") or ()
             if str(value).endswith(".safetensors")}  # fmt: skip
    assert set(re.findall(r"\[([^\]]+\.safetensors)\]", note)) == every

"""Prompts that version 0.1.0-dev made run with today's names."""

from __future__ import annotations

import json

import pytest
import torch
from comfyui import graphs
from comfyui.installation import PACK

TABLE = json.loads((PACK / "web" / "renamed.json").read_text(encoding="utf-8"))


def test_the_table_names_what_there_is(server):
    """Every new name is one of the node, every new value one of its choices, and no old one is."""
    for node, renamed in TABLE.items():
        schema = server.get(f"/object_info/{node}")[node]["input"]
        there = schema.get("required", {}) | schema.get("optional", {})
        for old, new in renamed.get("inputs", {}).items():
            assert (new in there, old in there) == (True, False), (node, old)
        for name, values in renamed.get("values", {}).items():
            kind, options = there[name]
            choices = kind if isinstance(kind, list) else options["options"]
            assert set(values.values()) <= set(choices), (node, name)
            assert not set(values) & set(choices), (node, name)


def of_old(graph: graphs.Graph) -> graphs.Graph:
    """A graph as 0.1.0-dev had it."""
    found = {}
    for name, node in graph.items():
        renamed = TABLE.get(node["class_type"], {})
        names = {new: old for old, new in renamed.get("inputs", {}).items()}
        values = {i: {new: old for old, new in v.items()} for i, v in renamed.get("values", {}).items()}
        inputs = {i: values.get(i, {}).get(v, v) if isinstance(v, str) else v for i, v in node["inputs"].items()}
        found[name] = node | {"inputs": {names.get(i, i): v for i, v in inputs.items()}}
    return found


def same(server, old: graphs.Graph, new: graphs.Graph) -> None:
    was, now = server.run(old).latents, server.run(new).latents
    assert was
    assert was.keys() == now.keys()
    assert all(torch.equal(was[name], now[name]) for name in was)


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_a_recording_and_its_transfer(server, quantization):
    graph = graphs.transfer(recording={"quantization": quantization, "layers": "3"})
    old = of_old(graph)
    assert "precision" in old["record"]["inputs"]
    same(server, old, graph)


@pytest.mark.parametrize("method", ["block top-k", "block top-p", "exact top-k", "exact top-p"])
def test_the_methods_of_sparse_attention(server, method):
    graph = graphs.sparsely(method=method, keep=50.0)
    old = of_old(graph)
    assert method not in json.dumps(old)
    same(server, old, graph)

"""The pack in the page."""

from __future__ import annotations


def test_every_node_of_the_pack_can_be_added(comfy):
    known = comfy.server.get("/object_info")
    ours = [name for name in known if name.startswith("VDiT_")]
    assert "VDiT_LayerMask" in ours
    for index, name in enumerate(ours):
        comfy.add(name, x=350 * (index % 3), y=250 * (index // 3))
    assert sorted(comfy.js("() => app.rootGraph.nodes.map((node) => node.type)")) == sorted(ours)
    assert not comfy.js("() => app.rootGraph.nodes.some((node) => node.has_errors)")

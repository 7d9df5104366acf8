"""What a node tells the page after a run goes to whoever queued it, with the workflow that it is of."""

from __future__ import annotations

import json

from comfyui import graphs
from websockets.sync.client import connect


def test_a_report_goes_to_whoever_queued_the_prompt(server):
    with connect(f"ws://{server.address}/ws?clientId=another", max_size=None) as another:
        result = server.run(graphs.transfer(seed=41), workflow="the one it was queued from")
        told = [message["data"] for message in result.messages if message["type"] == "vdit.report"]
        assert {report["node"] for report in told} == {"record", "finish", "transfer"}
        assert {(report["workflow"], report["prompt"]) for report in told} == {
            ("the one it was queued from", result.prompt)
        }
        heard = []
        try:
            while True:
                heard.append(another.recv(timeout=1))
        except TimeoutError:
            pass
    kinds = {json.loads(message)["type"] for message in heard if isinstance(message, str)}
    assert "status" in kinds, "it was listening"
    assert "vdit.report" not in kinds

"""A real ComfyUI server with the pack in custom_nodes, driven over its HTTP and WebSocket API."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor
from websockets.sync.client import connect

from .installation import PACK, ComfyUI, environment

FOLDER_NAME = "vdit-attention"


class PromptFailed(RuntimeError):
    """A prompt was refused or a node raised; the message is what the user would read."""


@dataclass
class Result:
    """What a prompt did: the nodes that ran (not those from the cache), all messages, and the latents it saved."""

    prompt: str
    ran: list[str] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    latents: dict[str, Tensor] = field(default_factory=dict)

    def reports(self) -> dict[str, str]:
        """The pack's summaries by node."""
        return {m["data"]["node"]: m["data"]["text"] for m in self.messages if m["type"] == "vdit.report"}


class Server:
    """A running server."""

    def __init__(self, address: str, base: Path, process: subprocess.Popen, log: Path) -> None:
        self.address, self.base, self.process, self.log = address, base, process, log
        self.client = uuid.uuid4().hex

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=30) as answer:
            return json.loads(answer.read())

    def post(self, path: str, content: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{self.url}{path}", json.dumps(content).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise PromptFailed(error.read().decode()) from None

    def run(
        self,
        prompt: dict[str, Any],
        interrupt_at: str | None = None,
        interrupt_after: int = 1,
        workflow: str | None = None,
    ) -> Result:
        """Queue an API prompt and wait until it has ended.

        interrupt_at: a node; the run is interrupted at this node's first progress, or the one after so many.
        workflow: the id of the workflow that it is said to be made of.

        Raises:
            PromptFailed: with the server's message.
        """
        made_of = {"extra_pnginfo": {"workflow": {"id": workflow}}}
        with connect(f"ws://{self.address}/ws?clientId={self.client}", max_size=None) as socket_:
            answer = self.post("/prompt", {"prompt": prompt, "client_id": self.client, "extra_data": made_of})
            queued = answer["prompt_id"]
            result = Result(queued)
            for raw in socket_:
                if isinstance(raw, bytes):
                    continue
                message = json.loads(raw)
                result.messages.append(message)
                kind, data = message["type"], message.get("data", {})
                if kind == "executing" and data.get("node") and data.get("prompt_id") == queued:
                    result.ran.append(data["node"])
                if kind == "progress" and data.get("node") == interrupt_at and interrupt_at:
                    interrupt_after -= 1
                    if interrupt_after <= 0:
                        self.post("/interrupt", {})
                if kind == "execution_error" and data["prompt_id"] == queued:
                    raise PromptFailed(f"{data['node_type']}: {data['exception_message']}")
                if kind == "execution_interrupted" and data["prompt_id"] == queued:
                    raise PromptFailed("interrupted")
                if kind == "execution_success" and data["prompt_id"] == queued:
                    break
        if answer["node_errors"]:
            raise PromptFailed(json.dumps(answer["node_errors"]))
        while queued not in (history := self.get(f"/history/{queued}")):
            time.sleep(0.02)  # it is written just after the last message
        for name, files in history[queued]["outputs"].items():
            for file in files.get("latents", ()):
                path = self.base / "output" / file["subfolder"] / file["filename"]
                result.latents[name] = load_file(path)["latent_tensor"]
        return result


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serve(comfyui: ComfyUI, base: Path, *options: str) -> Iterator[Server]:
    """Start a server on a free port with its own base directory; it is stopped in the end."""
    nodes = base / "custom_nodes"
    nodes.mkdir(parents=True)
    (nodes / FOLDER_NAME).symlink_to(PACK, target_is_directory=True)
    address = f"127.0.0.1:{_free_port()}"
    host, port = address.split(":")
    command = [str(comfyui.python), "main.py", "--cpu", "--base-directory", str(base), "--listen", host, "--port", port,
               "--database-url", f"sqlite:///{base}/comfyui.db", *options]  # fmt: skip
    log = base / "server.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=comfyui.folder, env=environment(comfyui), stdout=out, stderr=subprocess.STDOUT
        )
        try:
            server = Server(address, base, process, log)
            _wait_until_up(server)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_up(server: Server) -> None:
    for _ in range(600):
        if server.process.poll() is not None:
            break
        try:
            server.get("/system_stats")
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"The server did not come up:\n{server.log.read_text()[-3000:]}")

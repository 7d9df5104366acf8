"""A real ComfyUI server with the pack in custom_nodes, driven over its HTTP and WebSocket API."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor
from websockets.sync.client import connect

from .installation import PACK, ComfyUI, environment

FOLDER_NAME = "vdit-attention"
STAND_INS = Path(__file__).parent / "stand_ins"


class PromptFailed(RuntimeError):
    """A prompt was refused or a node raised; the message is what the user would read.

    result: what the prompt did until then; None if it was refused.
    """

    def __init__(self, message: str, result: Result | None = None) -> None:
        super().__init__(message)
        self.result = result


@dataclass
class Result:
    """What a prompt did: the nodes that ran (not those from the cache), all messages, the pictures sent while it ran
    (JPEG), the latents it saved, and what the history says of the pack's nodes (level and text)."""

    prompt: str
    ran: list[str] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    previews: list[bytes] = field(default_factory=list)
    latents: dict[str, Tensor] = field(default_factory=dict)
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    ended: bool = False

    def take(self, message: dict[str, Any]) -> None:
        """A message of the server, of this prompt or of another.

        Raises:
            PromptFailed: if this prompt broke off.
        """
        kind, data = message["type"], message.get("data", {})
        if self.prompt not in (data.get("prompt_id"), data.get("prompt")):
            return
        self.messages.append(message)
        if kind == "executing" and data.get("node"):
            self.ran.append(data["node"])
        if kind == "execution_error":
            raise PromptFailed(f"{data['node_type']}: {data['exception_message']}", self)
        if kind == "execution_interrupted":
            raise PromptFailed("interrupted", self)
        self.ended = self.ended or kind == "execution_success"

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

    def cpu_seconds(self) -> float:
        """The processor time that the server has taken, whoever else was running."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")  # in user and in kernel mode

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
        on_progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> Result:
        """Queue an API prompt and wait until it has ended.

        interrupt_at: a node; the run is interrupted at this node's first progress, or the one after so many.
        workflow: the id of the workflow that it is said to be made of. on_progress: called with each node's progress.

        Raises:
            PromptFailed: with the server's message.
        """
        made_of = {"extra_pnginfo": {"workflow": {"id": workflow}}}
        with self._listening() as messages:
            result = self._queue(prompt, made_of)
            for message in messages:
                result.take(message)
                data = message["data"]
                if message["type"] == "preview":
                    result.previews.append(data["image"])
                if message["type"] == "progress" and on_progress is not None:
                    on_progress(data)
                if message["type"] == "progress" and data.get("node") == interrupt_at and interrupt_at:
                    interrupt_after -= 1
                    if interrupt_after <= 0:
                        self.post("/interrupt", {})
                if result.ended:
                    return self._read(result)
        raise PromptFailed("the server hung up")

    def run_to_the_end(self, prompt: dict[str, Any]) -> Result:
        """Queue an API prompt without a page, as a script does, and wait until the history has it, failed or not."""
        answer = self.post("/prompt", {"prompt": prompt})
        result = Result(answer["prompt_id"])
        while result.prompt not in (history := self.get(f"/history/{result.prompt}")):
            time.sleep(0.05)
        errors = [data for kind, data in history[result.prompt]["status"]["messages"] if kind == "execution_error"]
        result.error = errors[0] if errors else None
        return self._read(result)

    def outcomes(self, prompt: str) -> dict[str, dict[str, Any]]:
        """What the history of a prompt says of the pack's nodes: whoever queued it, and from wherever."""
        outputs = self.get(f"/history/{prompt}")[prompt]["outputs"]
        told = {name: output.get("vdit_outcome", [[]])[0] for name, output in outputs.items()}
        return {name: said[0] for name, said in told.items() if said}

    def run_together(self, prompts: list[dict[str, Any]]) -> list[Result]:
        """Queue several prompts at once and wait until all have ended."""
        with self._listening() as messages:
            results = [self._queue(prompt, {}) for prompt in prompts]
            for message in messages:
                for result in results:
                    result.take(message)
                if all(result.ended for result in results):
                    return [self._read(result) for result in results]
        raise PromptFailed("the server hung up")

    @contextmanager
    def _listening(self) -> Iterator[Iterator[dict[str, Any]]]:
        with connect(f"ws://{self.address}/ws?clientId={self.client}", max_size=None) as socket_:
            yield (_picture(raw) if isinstance(raw, bytes) else json.loads(raw) for raw in socket_)

    def _queue(self, prompt: dict[str, Any], extra: dict[str, Any]) -> Result:
        answer = self.post("/prompt", {"prompt": prompt, "client_id": self.client, "extra_data": extra})
        if answer["node_errors"]:
            raise PromptFailed(json.dumps(answer["node_errors"]))
        return Result(answer["prompt_id"])

    def _read(self, result: Result) -> Result:
        """With the latents that it saved."""
        while result.prompt not in (history := self.get(f"/history/{result.prompt}")):
            time.sleep(0.02)  # it is written just after the last message
        result.outcomes = self.outcomes(result.prompt)
        for name, files in history[result.prompt]["outputs"].items():
            for file in files.get("latents", ()):
                path = self.base / "output" / file["subfolder"] / file["filename"]
                result.latents[name] = load_file(path)["latent_tensor"]
        return result


def _picture(raw: bytes) -> dict[str, Any]:
    """A message that holds a picture: two numbers of four bytes, then the file."""
    return {"type": "preview", "data": {"image": raw[8:]}}


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
    (nodes / STAND_INS.name).symlink_to(STAND_INS, target_is_directory=True)
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

"""The finished videos of a sweep on disk, so that an interrupted sweep goes on where it was.

    plan.json                    the sweep's settings and their fingerprint
    latents/source.safetensors   one file a video; its metadata holds the fingerprint and the SHA-256 of its latents

A video of a head group is named after its mask and its metadata holds the mask besides: the folder serves every sweep
and search with the same settings, whatever its groups. Each file is written whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..atomic import whole_file
from ..errors import VDiTError
from ..head_mask import HeadMask
from .plan import SOURCE, Sweep

FORMAT = "vdit layer sweep 1"


class FolderError(VDiTError, ValueError):
    """A folder holds something else than this sweep."""


class SweepFolder:
    """A folder of one sweep. Nothing is written before the first video is there.

    Raises:
        FolderError: if the folder holds another sweep, naming what differs, or a plan that cannot be read.
    """

    def __init__(self, path: Path, sweep: Sweep) -> None:
        self.path = Path(path)
        self.settings = sweep.settings()
        self.videos = sweep.videos()
        self.fingerprint = fingerprint(self.settings)
        self._check()

    @property
    def _plan(self) -> Path:
        return self.path / "plan.json"

    def file(self, number: int) -> Path:
        """The file of a video, by its number in `Sweep.videos`."""
        return self.path / "latents" / f"{self.videos[number].name}.safetensors"

    def _check(self) -> None:
        if not self._plan.exists():
            return
        try:
            plan = json.loads(self._plan.read_text(encoding="utf-8"))
            there = dict(plan["settings"])
            whole = plan["format"] == FORMAT and plan["fingerprint"] == fingerprint(there)
        except (ValueError, KeyError, TypeError, RecursionError):
            whole = False
        if not whole:
            raise FolderError(f"{self._plan} is not a whole plan of a layer sweep. Choose another folder or remove it.")
        if differences := _differences(there, self.settings):
            raise FolderError(f"{self.path} holds another sweep: {differences}. Choose another folder or remove it.")

    def load(self, say: Callable[[str], None] | None = None) -> dict[int, Tensor]:
        """The finished videos' latents by number. A damaged file counts as not there; `say` is told its name."""
        found: dict[int, Tensor] = {}
        for n in range(len(self.videos)):
            if not self.file(n).exists():
                continue
            try:
                found[n] = self._read(n, like=found.get(SOURCE))
            except (SafetensorError, FolderError, OSError) as error:
                if say:
                    say(f"{self.file(n)} is damaged ({error}): this video is sampled again.")
        return found

    def _read(self, number: int, like: Tensor | None) -> Tensor:
        with safe_open(self.file(number), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("fingerprint") != self.fingerprint:
                raise FolderError("it is of another sweep")
            if metadata.get("mask") != self._mask(number).get("mask"):
                raise FolderError("it is of another mask")
            latents = file.get_tensor("latents")
        if not latents.ndim or metadata.get("digest") != _digest(latents):
            raise FolderError("its numbers are not those that were written")
        if like is not None and (latents.shape, latents.dtype) != (like.shape, like.dtype):
            raise FolderError(f"its shape {tuple(latents.shape)} is not the source's, {tuple(like.shape)}")
        return latents

    def _mask(self, number: int) -> dict[str, str]:
        """What a file's metadata says of the mask. That of a layer is not said: its place in the sweep is its name."""
        mask = self.videos[number].mask
        return {"mask": mask.text} if isinstance(mask, HeadMask) else {}

    def save(self, number: int, latents: Tensor) -> None:
        """Write the latents of a video, and before the first one the plan.

        Raises:
            OSError: as the disk says.
        """
        path = self.file(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self._plan.exists():
            plan = {"format": FORMAT, "fingerprint": self.fingerprint, "settings": self.settings}
            with whole_file(self._plan) as part:
                part.write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")
        latents = latents.contiguous()
        try:
            with whole_file(path) as part:
                metadata = {"fingerprint": self.fingerprint, "digest": _digest(latents)} | self._mask(number)
                save_file({"latents": latents}, part, metadata=metadata)
        except SafetensorError as error:
            raise OSError(f"{path} could not be written: {error}") from None


def fingerprint(settings: dict[str, Any]) -> str:
    """SHA-256 of settings, hexadecimal."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _digest(latents: Tensor) -> str:
    return hashlib.sha256(latents.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def _differences(there: dict[str, Any], here: dict[str, Any]) -> str:
    names = [name for name in here | there if there.get(name) != here.get(name)]
    return "; ".join(f"{name} is {there.get(name)!r} there, {here.get(name)!r} here" for name in names)

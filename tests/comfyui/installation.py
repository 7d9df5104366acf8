"""Finds the real ComfyUI: $COMFYUI_PATH, comfy-cli's default place, or two folders up (an installed pack)."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACK = Path(__file__).parents[2]

#: One thread: a server beside a browser or another server would wait for them at every step.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class ComfyUI:
    """A checkout, and the Python that runs it."""

    folder: Path
    python: Path


#: FLIP, and matplotlib and what it needs beside what ComfyUI brings.
REQUIRED = ("flip-evaluator", "matplotlib", "contourpy", "cycler", "fonttools", "kiwisolver", "packaging", "pyparsing",
            "python-dateutil", "six")  # fmt: skip


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time is here for a folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@cache
def environment(comfyui: ComfyUI) -> dict[str, str]:
    """The variables for a server in which the pack's requirements are installed: beside ComfyUI's own packages, whose
    environment is the user's and stays as it is."""
    ask = "import sys; print(sys.implementation.cache_tag); import matplotlib, flip_evaluator"
    asked = subprocess.run([comfyui.python, "-c", ask], capture_output=True, text=True)
    if asked.returncode == 0:
        return ENVIRONMENT
    folder = PACK / "build" / f"requirements-{asked.stdout.strip()}"
    with _alone(folder):  # it is for all workers, and for later runs
        if not folder.exists():
            part = folder.with_name(f"{folder.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            install = [comfyui.python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", part]
            subprocess.run(list(map(str, [*install, *REQUIRED])), check=True)
            part.rename(folder)
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    return ENVIRONMENT | {"PYTHONPATH": path}


def find() -> ComfyUI | None:
    places = [os.environ.get("COMFYUI_PATH"), Path.home() / "comfy" / "ComfyUI", PACK.parents[1]]
    for place in places:
        if place and (Path(place) / "comfy" / "sd.py").is_file():
            python = Path(place) / ".venv" / "bin" / "python"
            return ComfyUI(Path(place), python if python.exists() else Path(sys.executable))
    return None
